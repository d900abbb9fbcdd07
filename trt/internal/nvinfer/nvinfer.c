#include "nvinfer.h"

#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// member returns the function in a slot of the implementation behind an interface object, and that implementation.
typedef struct {
	void *self;
	void *f;
} member;

static member impl(void *obj, int slot) {
	void *self = ((void **)obj)[1];
	return (member){self, (*(void ***)self)[slot]};
}

static void *own(void *obj, int slot) { return (*(void ***)obj)[slot]; }

#define CALL(m, result, ...) ((result(*)(void *, ##__VA_ARGS__))(m).f)

// Dims as TensorRT 8 and 10 pass it.
typedef struct {
	int32_t n;
	int32_t d[8];
} dims32;

static bool narrow(const qg_slots *s) { return s->dims_bytes == (int)sizeof(dims32); }

static dims32 to32(qg_dims d) {
	dims32 r = {d.n, {0}};
	for (int i = 0; i < 8; i++) r.d[i] = (int32_t)d.d[i];
	return r;
}

static qg_dims from32(dims32 d) {
	qg_dims r = {d.n, {0}};
	for (int i = 0; i < 8; i++) r.d[i] = d.d[i];
	return r;
}

int32_t qg_lib_version(void *symbol) { return ((int32_t(*)(void))symbol)(); }

// 10.15 answers with a null pointer plus an offset (0x238) where CUDA does not start: no object lies in the first page.
static void *object_or_null(void *p) { return (uintptr_t)p < 4096 ? NULL : p; }

void *qg_create(void *symbol, void *logger, int32_t version) {
	return object_or_null(((void *(*)(void *, int32_t))symbol)(logger, version));
}

void *qg_create_parser(void *symbol, void *network, void *logger, int32_t version) {
	return object_or_null(((void *(*)(void *, void *, int))symbol)(network, logger, version));
}

bool qg_init_plugins(void *symbol, void *logger) { return ((bool (*)(void *, const char *))symbol)(logger, ""); }

// The deleting destructor is an interface's second member.
void qg_delete(void *obj) {
	if (obj) ((void (*)(void *))own(obj, 1))(obj);
}

void qg_delete_parser(const qg_slots *s, void *parser) {
	if (parser) ((void (*)(void *))own(parser, s->parser_delete))(parser);
}

void *qg_builder_config(const qg_slots *s, void *obj) {
	member m = impl(obj, s->builder_config);
	return CALL(m, void *)(m.self);
}

// Flag 0 is the explicit batch, which 8 needs and 10 takes for granted.
void *qg_builder_network(const qg_slots *s, void *obj) {
	member m = impl(obj, s->builder_network);
	return CALL(m, void *, uint32_t)(m.self, 1U);
}

void *qg_builder_profile(const qg_slots *s, void *obj) {
	member m = impl(obj, s->builder_profile);
	return CALL(m, void *)(m.self);
}

void *qg_builder_build(const qg_slots *s, void *obj, void *network, void *config) {
	member m = impl(obj, s->builder_build);
	return CALL(m, void *, void *, void *)(m.self, network, config);
}

int32_t qg_network_count(const qg_slots *s, void *obj, bool outputs) {
	member m = impl(obj, outputs ? s->network_outputs : s->network_inputs);
	return CALL(m, int32_t)(m.self);
}

void *qg_network_tensor(const qg_slots *s, void *obj, bool outputs, int32_t i) {
	member m = impl(obj, outputs ? s->network_output : s->network_input);
	return CALL(m, void *, int32_t)(m.self, i);
}

void qg_network_unmark(const qg_slots *s, void *obj, void *tensor) {
	member m = impl(obj, s->network_unmark);
	CALL(m, void, void *)(m.self, tensor);
}

const char *qg_tensor_name(const qg_slots *s, void *obj) {
	member m = impl(obj, s->tensor_name);
	return CALL(m, const char *)(m.self);
}

int32_t qg_tensor_type(const qg_slots *s, void *obj) {
	member m = impl(obj, s->tensor_type);
	return CALL(m, int32_t)(m.self);
}

qg_dims qg_tensor_dims(const qg_slots *s, void *obj) {
	member m = impl(obj, s->tensor_dims);
	return narrow(s) ? from32(CALL(m, dims32)(m.self)) : CALL(m, qg_dims)(m.self);
}

void qg_config_flag(const qg_slots *s, void *obj, int32_t flag, bool on) {
	member m = impl(obj, on ? s->config_set_flag : s->config_clear_flag);
	CALL(m, void, int32_t)(m.self, flag);
}

int32_t qg_config_add_profile(const qg_slots *s, void *obj, void *profile) {
	member m = impl(obj, s->config_add_profile);
	return CALL(m, int32_t, void *)(m.self, profile);
}

bool qg_config_calibration_profile(const qg_slots *s, void *obj, void *profile) {
	member m = impl(obj, s->config_calibration_profile);
	return CALL(m, bool, void *)(m.self, profile);
}

void qg_config_verbosity(const qg_slots *s, void *obj, int32_t verbosity) {
	member m = impl(obj, s->config_verbosity);
	CALL(m, void, int32_t)(m.self, verbosity);
}

bool qg_config_tactics(const qg_slots *s, void *obj, uint32_t sources) {
	member m = impl(obj, s->config_tactics);
	return CALL(m, bool, uint32_t)(m.self, sources);
}

uint32_t qg_config_get_tactics(const qg_slots *s, void *obj) {
	member m = impl(obj, s->config_get_tactics);
	return CALL(m, uint32_t)(m.self);
}

void *qg_config_timing_create(const qg_slots *s, void *obj, const void *data, size_t size) {
	member m = impl(obj, s->config_timing_create);
	return CALL(m, void *, const void *, size_t)(m.self, data, size);
}

bool qg_config_timing_set(const qg_slots *s, void *obj, void *cache) {
	member m = impl(obj, s->config_timing_set);
	return CALL(m, bool, void *, bool)(m.self, cache, false);
}

void qg_config_workspace(const qg_slots *s, void *obj, size_t size) {
	member m = impl(obj, s->config_pool);
	CALL(m, void, int32_t, size_t)(m.self, 0, size);
}

void qg_config_level(const qg_slots *s, void *obj, int32_t level) {
	member m = impl(obj, s->config_level);
	CALL(m, void, int32_t)(m.self, level);
}

void qg_config_preview(const qg_slots *s, void *obj, int32_t feature, bool on) {
	member m = impl(obj, s->config_preview);
	CALL(m, void, int32_t, bool)(m.self, feature, on);
}

void qg_config_calibrator(const qg_slots *s, void *obj, void *calibrator) {
	member m = impl(obj, s->config_calibrator);
	CALL(m, void, void *)(m.self, calibrator);
}

void qg_config_monitor(const qg_slots *s, void *obj, void *monitor) {
	member m = impl(obj, s->config_monitor);
	CALL(m, void, void *)(m.self, monitor);
}

// 8 takes the dimensions by value, 10 by reference.
bool qg_profile_dims(const qg_slots *s, void *obj, const char *name, int32_t selector, qg_dims dims) {
	member m = impl(obj, s->profile_dims);
	if (narrow(s)) return CALL(m, bool, const char *, int32_t, dims32)(m.self, name, selector, to32(dims));
	return CALL(m, bool, const char *, int32_t, const qg_dims *)(m.self, name, selector, &dims);
}

bool qg_parser_parse(const qg_slots *s, void *obj, const void *data, size_t size, const char *path) {
	return ((bool (*)(void *, const void *, size_t, const char *))own(obj, s->parser_parse))(obj, data, size, path);
}

// Verbosity 2: warnings and worse; what is shown is decided by the logger.
bool qg_parser_file(const qg_slots *s, void *obj, const char *path) {
	return ((bool (*)(void *, const char *, int))own(obj, s->parser_file))(obj, path, 2);
}

int32_t qg_parser_errors(const qg_slots *s, void *obj) { return ((int (*)(void *))own(obj, s->parser_errors))(obj); }

const char *qg_parser_error(const qg_slots *s, void *obj, int32_t i, int32_t *node) {
	void *e = ((void *(*)(void *, int))own(obj, s->parser_error))(obj, i);
	if (!e) return 0;
	*node = ((int (*)(void *))own(e, s->parser_error_node))(e);
	return ((const char *(*)(void *))own(e, s->parser_error_text))(e);
}

// 8 has a third argument, long without effect.
void *qg_runtime_deserialize(const qg_slots *s, void *obj, const void *data, size_t size) {
	member m = impl(obj, s->runtime_deserialize);
	return CALL(m, void *, const void *, size_t, void *)(m.self, data, size, NULL);
}

// 10 has an argument, 0: memory for the largest shapes, once; 8 does not look at it.
void *qg_engine_context(const qg_slots *s, void *obj) {
	member m = impl(obj, s->engine_context);
	return CALL(m, void *, int32_t)(m.self, 0);
}

void *qg_engine_inspector(const qg_slots *s, void *obj) {
	member m = impl(obj, s->engine_inspector);
	return CALL(m, void *)(m.self);
}

int32_t qg_engine_tensors(const qg_slots *s, void *obj) {
	member m = impl(obj, s->engine_tensors);
	return CALL(m, int32_t)(m.self);
}

const char *qg_engine_tensor(const qg_slots *s, void *obj, int32_t i) {
	member m = impl(obj, s->engine_tensor);
	return CALL(m, const char *, int32_t)(m.self, i);
}

static qg_dims named_dims(const qg_slots *s, member m, const char *name) {
	return narrow(s) ? from32(CALL(m, dims32, const char *)(m.self, name)) : CALL(m, qg_dims, const char *)(m.self, name);
}

qg_dims qg_engine_shape(const qg_slots *s, void *obj, const char *name) { return named_dims(s, impl(obj, s->engine_shape), name); }

int32_t qg_engine_type(const qg_slots *s, void *obj, const char *name) {
	member m = impl(obj, s->engine_type);
	return CALL(m, int32_t, const char *)(m.self, name);
}

int32_t qg_engine_mode(const qg_slots *s, void *obj, const char *name) {
	member m = impl(obj, s->engine_mode);
	return CALL(m, int32_t, const char *)(m.self, name);
}

bool qg_context_input_shape(const qg_slots *s, void *obj, const char *name, qg_dims dims) {
	member m = impl(obj, s->context_input_shape);
	dims32 small = to32(dims);
	return CALL(m, bool, const char *, const void *)(m.self, name, narrow(s) ? (const void *)&small : (const void *)&dims);
}

qg_dims qg_context_shape(const qg_slots *s, void *obj, const char *name) { return named_dims(s, impl(obj, s->context_shape), name); }

bool qg_context_address(const qg_slots *s, void *obj, const char *name, uint64_t address) {
	member m = impl(obj, s->context_address);
	return CALL(m, bool, const char *, void *)(m.self, name, (void *)(uintptr_t)address);
}

bool qg_context_enqueue(const qg_slots *s, void *obj, uint64_t stream) {
	member m = impl(obj, s->context_enqueue);
	return CALL(m, bool, void *)(m.self, (void *)(uintptr_t)stream);
}

bool qg_inspector_context(const qg_slots *s, void *obj, void *context) {
	member m = impl(obj, s->inspector_context);
	return CALL(m, bool, void *)(m.self, context);
}

const char *qg_inspector_information(const qg_slots *s, void *obj, int32_t format) {
	member m = impl(obj, s->inspector_information);
	return CALL(m, const char *, int32_t)(m.self, format);
}

void *qg_timing_serialize(const qg_slots *s, void *obj) {
	member m = impl(obj, s->timing_serialize);
	return CALL(m, void *)(m.self);
}

void *qg_memory_data(const qg_slots *s, void *obj) {
	member m = impl(obj, s->memory_data);
	return CALL(m, void *)(m.self);
}

size_t qg_memory_size(const qg_slots *s, void *obj) {
	member m = impl(obj, s->memory_size);
	return CALL(m, size_t)(m.self);
}

// A callback object begins as a C++ object does: with the address of its table, which is its own.
typedef struct {
	void **table;
	uintptr_t handle;
	int32_t most;      // loggers: the least severe message passed on
	int32_t algorithm; // calibrators
	int32_t batch;
	void *members[16];
} callback;

static void nothing(void *self) { (void)self; } // destructors: the Go side frees

static callback *new_callback(uintptr_t handle) {
	callback *c = calloc(1, sizeof *c);
	if (!c) abort(); // as Go does when memory ends
	c->table = c->members;
	c->handle = handle;
	for (int i = 0; i < 16; i++) c->members[i] = nothing;
	return c;
}

void qg_free_callback(void *obj) { free(obj); }

static void logger_log(void *self, int32_t severity, const char *text) {
	callback *c = self;
	if (severity <= c->most && text) qgLog(c->handle, severity, (char *)text);
}

void *qg_new_logger(uintptr_t handle, int32_t most) {
	callback *c = new_callback(handle);
	c->most = most;
	c->members[0] = logger_log;
	return c;
}

// InterfaceInfo of 10: sixteen bytes, returned in registers.
typedef struct {
	const char *kind;
	int32_t major, minor;
} interface_info;

static int32_t language(void *self) {
	(void)self;
	return 0; // C++
}

static interface_info calibrator_info(void *self) {
	callback *c = self;
	const char *kind = c->algorithm == 1 ? "IInt8EntropyCalibrator" : c->algorithm == 2 ? "IInt8EntropyCalibrator2" : "IInt8MinMaxCalibrator";
	return (interface_info){kind, 1, 0};
}

static interface_info monitor_info(void *self) {
	(void)self;
	return (interface_info){"IProgressMonitor", 1, 0};
}

static int32_t calibrator_batch_size(void *self) { return ((callback *)self)->batch; }

static bool calibrator_batch(void *self, void **bindings, const char **names, int32_t n) {
	uint64_t address = 0;
	if (n != 1 || !qgCalibrationBatch(((callback *)self)->handle, (char *)names[0], &address)) return false;
	bindings[0] = (void *)(uintptr_t)address;
	return true;
}

static const void *calibrator_read(void *self, size_t *length) {
	void *data = 0;
	*length = 0;
	qgReadCache(((callback *)self)->handle, &data, length);
	return data;
}

static void calibrator_write(void *self, const void *data, size_t length) {
	qgWriteCache(((callback *)self)->handle, (void *)data, length);
}

static int32_t calibrator_algorithm(void *self) { return ((callback *)self)->algorithm; }

static void versioned(const qg_slots *s, callback *c, interface_info (*info)(void *)) {
	if (s->versioned_language == QG_ABSENT) return;
	c->members[s->versioned_language] = language;
	c->members[s->versioned_info] = info;
}

void *qg_new_calibrator(const qg_slots *s, uintptr_t handle, int32_t algorithm, int32_t batch) {
	callback *c = new_callback(handle);
	c->algorithm = algorithm;
	c->batch = batch;
	versioned(s, c, calibrator_info);
	c->members[s->calibrator_batch_size] = calibrator_batch_size;
	c->members[s->calibrator_batch] = calibrator_batch;
	c->members[s->calibrator_read] = calibrator_read;
	c->members[s->calibrator_write] = calibrator_write;
	c->members[s->calibrator_algorithm] = calibrator_algorithm;
	return c;
}

static void monitor_start(void *self, const char *phase, const char *parent, int32_t steps) {
	qgPhase(((callback *)self)->handle, (char *)phase, (char *)parent, steps);
}

static bool monitor_step(void *self, const char *phase, int32_t step) { return qgStep(((callback *)self)->handle, (char *)phase, step); }

static void monitor_finish(void *self, const char *phase) { (void)self, (void)phase; }

void *qg_new_monitor(const qg_slots *s, uintptr_t handle) {
	callback *c = new_callback(handle);
	versioned(s, c, monitor_info);
	c->members[s->monitor_start] = monitor_start;
	c->members[s->monitor_step] = monitor_step;
	c->members[s->monitor_finish] = monitor_finish;
	return c;
}
