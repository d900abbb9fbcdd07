// C calls into TensorRT without its headers: see slots.h. Every pointer called obj is an interface object of TensorRT's.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "slots.h"

// qg_dims is Dims of either width.
typedef struct {
	int32_t n;
	int64_t d[8];
} qg_dims;

int32_t qg_lib_version(void *symbol);
void *qg_create(void *symbol, void *logger, int32_t version);
void *qg_create_parser(void *symbol, void *network, void *logger, int32_t version);
bool qg_init_plugins(void *symbol, void *logger);
void qg_delete(void *obj);
void qg_delete_parser(const qg_slots *s, void *parser);

void *qg_builder_config(const qg_slots *s, void *obj);
void *qg_builder_network(const qg_slots *s, void *obj);
void *qg_builder_profile(const qg_slots *s, void *obj);
void *qg_builder_build(const qg_slots *s, void *obj, void *network, void *config);

int32_t qg_network_count(const qg_slots *s, void *obj, bool outputs);
void *qg_network_tensor(const qg_slots *s, void *obj, bool outputs, int32_t i);
void qg_network_unmark(const qg_slots *s, void *obj, void *tensor);
const char *qg_tensor_name(const qg_slots *s, void *obj);
int32_t qg_tensor_type(const qg_slots *s, void *obj);
qg_dims qg_tensor_dims(const qg_slots *s, void *obj);

void qg_config_flag(const qg_slots *s, void *obj, int32_t flag, bool on);
int32_t qg_config_add_profile(const qg_slots *s, void *obj, void *profile);
bool qg_config_calibration_profile(const qg_slots *s, void *obj, void *profile);
void qg_config_verbosity(const qg_slots *s, void *obj, int32_t verbosity);
bool qg_config_tactics(const qg_slots *s, void *obj, uint32_t sources);
uint32_t qg_config_get_tactics(const qg_slots *s, void *obj);
void *qg_config_timing_create(const qg_slots *s, void *obj, const void *data, size_t size);
bool qg_config_timing_set(const qg_slots *s, void *obj, void *cache);
void qg_config_workspace(const qg_slots *s, void *obj, size_t size);
void qg_config_level(const qg_slots *s, void *obj, int32_t level);
void qg_config_preview(const qg_slots *s, void *obj, int32_t feature, bool on);
void qg_config_calibrator(const qg_slots *s, void *obj, void *calibrator);
void qg_config_monitor(const qg_slots *s, void *obj, void *monitor);
bool qg_profile_dims(const qg_slots *s, void *obj, const char *name, int32_t selector, qg_dims dims);

bool qg_parser_parse(const qg_slots *s, void *obj, const void *data, size_t size, const char *path);
bool qg_parser_file(const qg_slots *s, void *obj, const char *path);
int32_t qg_parser_errors(const qg_slots *s, void *obj);
const char *qg_parser_error(const qg_slots *s, void *obj, int32_t i, int32_t *node);

void *qg_runtime_deserialize(const qg_slots *s, void *obj, const void *data, size_t size);
void *qg_engine_context(const qg_slots *s, void *obj);
void *qg_engine_inspector(const qg_slots *s, void *obj);
int32_t qg_engine_tensors(const qg_slots *s, void *obj);
const char *qg_engine_tensor(const qg_slots *s, void *obj, int32_t i);
qg_dims qg_engine_shape(const qg_slots *s, void *obj, const char *name);
int32_t qg_engine_type(const qg_slots *s, void *obj, const char *name);
int32_t qg_engine_mode(const qg_slots *s, void *obj, const char *name);
bool qg_context_input_shape(const qg_slots *s, void *obj, const char *name, qg_dims dims);
qg_dims qg_context_shape(const qg_slots *s, void *obj, const char *name);
bool qg_context_address(const qg_slots *s, void *obj, const char *name, uint64_t address);
bool qg_context_enqueue(const qg_slots *s, void *obj, uint64_t stream);
bool qg_inspector_context(const qg_slots *s, void *obj, void *context);
const char *qg_inspector_information(const qg_slots *s, void *obj, int32_t format);
void *qg_timing_serialize(const qg_slots *s, void *obj);
void *qg_memory_data(const qg_slots *s, void *obj);
size_t qg_memory_size(const qg_slots *s, void *obj);

// Objects that TensorRT calls back. handle names a Go value; it is no address. qg_free_callback frees any of them.
void *qg_new_logger(uintptr_t handle, int32_t most);
void *qg_new_calibrator(const qg_slots *s, uintptr_t handle, int32_t algorithm, int32_t batch);
void *qg_new_monitor(const qg_slots *s, uintptr_t handle);
void qg_free_callback(void *obj);
