// The places of TensorRT's virtual members that nvinfer.c calls, by major version, found from NVIDIA's public headers and compared with
// them by TestSlotsAgainstHeaders. NVIDIA keeps the order within a major version and appends; 9 was never a general release.
// An interface object is { table, implementation }: its own table holds its two destructors, and everything else is a member of the
// implementation, whose table begins with two destructors too. Parser and callback interfaces have their members in their own table.
#pragma once

enum { QG_ABSENT = -1 };

// X(field, 8.5 and 8.6, 10.x, 11.x)
#define QG_SLOTS(X) \
	X(builder_config, 9, 7, 5) \
	X(builder_network, 11, 8, 6) \
	X(builder_profile, 12, 9, 7) \
	X(builder_build, 17, 14, 11) \
	X(network_inputs, 19, 14, 14) \
	X(network_input, 20, 15, 15) \
	X(network_outputs, 21, 16, 16) \
	X(network_output, 22, 17, 17) \
	X(network_unmark, 32, 26, 26) \
	X(tensor_name, 3, 3, 3) \
	X(tensor_dims, 5, 5, 5) \
	X(tensor_type, 7, 7, 6) \
	X(config_set_flag, 15, 11, 9) \
	X(config_clear_flag, 14, 10, 8) \
	X(config_add_profile, 29, 25, 23) \
	X(config_verbosity, 31, 27, 25) \
	X(config_tactics, 42, 38, 27) \
	X(config_get_tactics, 43, 39, 28) \
	X(config_timing_create, 44, 40, 29) \
	X(config_timing_set, 45, 41, 30) \
	X(config_pool, 47, 43, 32) \
	X(config_calibrator, 8, 6, QG_ABSENT) \
	X(config_calibration_profile, 35, 31, QG_ABSENT) \
	X(config_level, 51, 47, 36) \
	X(config_preview, 49, 45, 34) \
	X(preview_profile_sharing, 2, QG_ABSENT, QG_ABSENT) \
	X(profile_dims, 2, 2, 2) \
	X(runtime_deserialize, 2, 3, 3) \
	X(engine_context, 11, 5, 5) \
	X(config_monitor, QG_ABSENT, 56, 45) \
	X(engine_inspector, 33, 18, 14) \
	X(engine_shape, 34, 19, 15) \
	X(engine_type, 35, 20, 16) \
	X(engine_mode, 38, 23, 19) \
	X(engine_tensors, 45, 30, 26) \
	X(engine_tensor, 46, 31, 27) \
	X(context_input_shape, 29, 21, 20) \
	X(context_shape, 30, 22, 21) \
	X(context_address, 32, 24, 23) \
	X(context_enqueue, 44, 37, 36) \
	X(inspector_context, 2, 3, 3) \
	X(inspector_information, 5, 6, 6) \
	X(timing_serialize, 2, 2, 2) \
	X(memory_data, 2, 2, 2) \
	X(memory_size, 3, 3, 3) \
	X(parser_parse, 0, 0, 0) \
	X(parser_file, 1, 1, 1) \
	X(parser_errors, 6, 5, 3) \
	X(parser_error, 7, 6, 4) \
	X(parser_error_text, 1, 1, 1) \
	X(parser_error_node, 5, 5, 5) \
	X(logger_log, 0, 0, 4) \
	X(calibrator_batch_size, 0, 4, QG_ABSENT) \
	X(calibrator_batch, 1, 5, QG_ABSENT) \
	X(calibrator_read, 2, 6, QG_ABSENT) \
	X(calibrator_write, 3, 7, QG_ABSENT) \
	X(calibrator_algorithm, 4, 8, QG_ABSENT) \
	X(algorithm_entropy, 1, 1, QG_ABSENT) \
	X(algorithm_entropy2, 2, 2, QG_ABSENT) \
	X(algorithm_minmax, 3, 3, QG_ABSENT) \
	X(versioned_language, QG_ABSENT, 0, 0) \
	X(versioned_info, QG_ABSENT, 1, 1) \
	X(monitor_start, QG_ABSENT, 4, 4) \
	X(monitor_step, QG_ABSENT, 5, 5) \
	X(monitor_finish, QG_ABSENT, 6, 6) \
	X(flag_fp16, 0, 0, QG_ABSENT) \
	X(flag_int8, 1, 1, QG_ABSENT) \
	X(flag_tf32, 7, 6, 6) \
	X(dims_bytes, 36, 72, 72) \
	X(parser_delete, 10, 9, 7)

#define QG_FIELD(field, v8, v10, v11) int field;
typedef struct qg_slots {
	QG_SLOTS(QG_FIELD)
} qg_slots;
#undef QG_FIELD

// qg_slots_of returns the table of a major version, or a null pointer.
static inline const qg_slots *qg_slots_of(int major) {
#define QG_V8(field, v8, v10, v11) v8,
#define QG_V10(field, v8, v10, v11) v10,
#define QG_V11(field, v8, v10, v11) v11,
	static const qg_slots v8 = {QG_SLOTS(QG_V8)}, v10 = {QG_SLOTS(QG_V10)}, v11 = {QG_SLOTS(QG_V11)};
#undef QG_V8
#undef QG_V10
#undef QG_V11
	return major == 8 ? &v8 : major == 10 ? &v10 : major == 11 ? &v11 : 0;
}
