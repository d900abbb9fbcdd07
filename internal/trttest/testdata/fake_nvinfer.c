// A TensorRT that needs no GPU: the same tables as the real one (slots.h), filled with members that do a little, or what FAKE_TRT asks
// for instead. Any member that is called by a wrong slot ends the process. MAJOR and VERSION are given by the compiler.
//
// A model is text: "fake", then lines "input NAME TYPE DIMS..." and "output NAME TYPE DIMS...". An output is twice the input,
// image by image; "total" as an output's name makes it one row whatever the batch.
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slots.h"

#define WIDE (MAJOR >= 10)
#if WIDE
typedef int64_t dim;
#else
typedef int32_t dim;
#endif
typedef struct {
	int32_t n;
	dim d[8];
} dims;

static const qg_slots *S;
static void **tables[16];
static int live; // objects not yet deleted

int fake_live_objects(void) { return live; }

static bool mode(const char *what) {
	const char *m = getenv("FAKE_TRT");
	return m && !strcmp(m, what);
}

static void trap(void) {
	fprintf(stderr, "fake TensorRT: a member was called that quantgate does not use\n");
	abort();
}

typedef struct {
	char name[64];
	int32_t type;
	dims shape;
	bool input, marked;
} port;

typedef struct {
	port ports[16];
	int n;
} model;

// object is an interface and its implementation in one.
typedef struct object {
	void **table; // the interface's: its destructors
	void *impl;   // &members
	void **members;
	int kind;
	void *logger;
	model m;
	port *at;
	char *bytes;
	size_t size;
	void *calibrator, *monitor;
	bool fp16, int8, tf32;
	uint32_t tactics;
	dims in;
	void *address[16];
	struct object *tensors[16];
} object;

enum { BUILDER, NETWORK, CONFIG, PROFILE, TENSOR, MEMORY, RUNTIME, ENGINE, CONTEXT, INSPECTOR, TIMING, KINDS };

static object *self_of(void *impl) { return (object *)((char *)impl - offsetof(object, members)); }

static void dead(void *p) { (void)p; trap(); }

static void delete(void *p) {
	object *o = p;
	for (int i = 0; i < 16; i++) free(o->tensors[i]);
	free(o->bytes);
	free(o);
	__sync_fetch_and_sub(&live, 1);
}

static void *destructors[2] = {dead, delete};

static object *make(int kind, void *logger) {
	object *o = calloc(1, sizeof *o);
	o->table = destructors;
	o->members = tables[kind];
	o->impl = &o->members;
	o->kind = kind;
	o->logger = logger;
	__sync_fetch_and_add(&live, 1);
	return o;
}

static void *member_of(void *obj, int slot) { return (*(void ***)obj)[slot]; }

static void say(void *logger, int severity, const char *format, ...) {
	char text[256];
	va_list a;
	va_start(a, format);
	vsnprintf(text, sizeof text, format, a);
	va_end(a);
	((void (*)(void *, int32_t, const char *))member_of(logger, S->logger_log))(logger, severity, text);
}

// builder

static void *builder_config(void *p) {
	object *o = make(CONFIG, self_of(p)->logger);
	o->tactics = 0x1f, o->tf32 = true;
	return mode("null_config") ? delete(o), NULL : o;
}
static void *builder_network(void *p, uint32_t flags) {
	if (!(flags & 1) || mode("null_network")) return NULL;
	return make(NETWORK, self_of(p)->logger);
}
static void *builder_profile(void *p) {
	static object *kept; // TensorRT's builder owns its profiles; so does the process here
	if (mode("null_profile")) return NULL;
	if (!kept) kept = make(PROFILE, self_of(p)->logger), live--;
	return kept;
}

static bool calibrate(object *b, object *n, object *c) {
	size_t length = 0;
	const void *cache = ((const void *(*)(void *, size_t *))member_of(c->calibrator, S->calibrator_read))(c->calibrator, &length);
	if (cache && length) {
		say(b->logger, 2, "took a calibration cache of %zu bytes", length);
		return true;
	}
	int size = ((int32_t(*)(void *))member_of(c->calibrator, S->calibrator_batch_size))(c->calibrator);
	int algorithm = ((int32_t(*)(void *))member_of(c->calibrator, S->calibrator_algorithm))(c->calibrator);
	float most = 0;
	int batches = 0;
	size_t values = size;
	for (int i = 1; i < n->m.ports[0].shape.n; i++) values *= n->m.ports[0].shape.d[i];
	for (;; batches++) {
		void *bindings[1] = {0};
		const char *names[1] = {mode("wrong_name") ? "other" : n->m.ports[0].name};
		if (!((bool (*)(void *, void **, const char **, int32_t))member_of(c->calibrator, S->calibrator_batch))(c->calibrator, bindings, names, 1)) break;
		for (size_t i = 0; i < values; i++) {
			float v = ((float *)bindings[0])[i];
			if (v < 0) v = -v;
			if (v > most) most = v;
		}
	}
	if (!batches) {
		say(b->logger, 1, "Calibration failure occurred with no scaling factors detected.");
		return false;
	}
	float scale = most / 127;
	uint32_t bits;
	memcpy(&bits, &scale, 4);
	char text[256];
	const char *names[] = {"", "EntropyCalibration", "EntropyCalibration2", "MinMaxCalibration"};
	int len = snprintf(text, sizeof text, "TRT-%d-%s\n%s: %08x\n", VERSION, names[algorithm], n->m.ports[0].name, bits);
	if (!mode("no_cache"))
		((void (*)(void *, const void *, size_t))member_of(c->calibrator, S->calibrator_write))(c->calibrator, text, len);
	return true;
}

static void *storm(void *p) {
	for (int i = 0; i < 2000; i++) say(p, 2, "INT64 weights were cast down to INT32");
	for (int i = 0; i < 3000; i++) say(p, 2, "message %d\nof many", i);
	return NULL;
}

static void *builder_build(void *p, object *n, object *c) {
	object *b = self_of(p);
	if (mode("log_storm")) {
		pthread_t t[4];
		for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, storm, b->logger);
		for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
	}
	if (c->int8 && c->calibrator && !calibrate(b, n, c)) return NULL;
	if (c->monitor) {
		void *m = c->monitor;
#if WIDE
		struct info { const char *kind; int32_t major, minor; };
		struct info v = ((struct info(*)(void *))member_of(m, S->versioned_info))(m);
		if (strcmp(v.kind, "IProgressMonitor") || v.major != 1 || v.minor || ((int32_t(*)(void *))member_of(m, S->versioned_language))(m)) trap();
#endif
		((void (*)(void *, const char *, const char *, int32_t))member_of(m, S->monitor_start))(m, "Building", NULL, 3);
		for (int i = 0; i < 3; i++)
			if (!((bool (*)(void *, const char *, int32_t))member_of(m, S->monitor_step))(m, "Building", i)) {
				say(b->logger, 1, "the build was cancelled");
				return NULL;
			}
		((void (*)(void *, const char *))member_of(m, S->monitor_finish))(m, "Building");
	}
	if (mode("null_plan")) {
		say(b->logger, 1, "Could not find any implementation for node conv1");
		return NULL;
	}
	object *plan = make(MEMORY, b->logger);
	plan->size = mode("empty_plan") ? 0 : sizeof(model) + 4;
	plan->bytes = malloc(sizeof(model) + 4);
	memcpy(plan->bytes, &n->m, sizeof(model));
	char flags[4] = {'p', c->fp16 ? 'h' : '-', c->int8 ? 'i' : '-', c->tf32 ? 't' : '-'};
	memcpy(plan->bytes + sizeof(model), flags, 4);
	return plan;
}

// network: member 100 is the fake parser's way in

static bool network_fill(void *p, const char *data, size_t size) {
	object *o = self_of(p);
	const char *instead = getenv("FAKE_MODEL"); // what an ONNX file stands for, its lines ended by ';'
	char *text = instead && strncmp(data, "fake", 4) ? strdup(instead) : strndup(data, size), *save = NULL;
	for (char *c = text; instead && *c; c++)
		if (*c == ';') *c = '\n';
	char *line = strtok_r(text, "\n", &save);
	bool ok = line && !strcmp(line, "fake");
	while (ok && (line = strtok_r(NULL, "\n", &save))) {
		port *q = &o->m.ports[o->m.n++];
		char kind[16];
		int used = 0, more;
		long long d;
		ok = sscanf(line, "%15s %63s %d%n", kind, q->name, &q->type, &used) == 3;
		q->input = !strcmp(kind, "input"), q->marked = true;
		for (line += used; ok && sscanf(line, "%lld%n", &d, &more) == 1; line += more) q->shape.d[q->shape.n++] = d;
	}
	free(text);
	return ok && o->m.n > 1;
}

static port *nth(model *m, bool input, int i) {
	for (int k = 0; k < m->n; k++)
		if (m->ports[k].input == input && m->ports[k].marked && i-- == 0) return &m->ports[k];
	return NULL;
}
static int32_t count(model *m, bool input) {
	int n = 0;
	while (nth(m, input, n)) n++;
	return n;
}
static int32_t network_inputs(void *p) { return count(&self_of(p)->m, true); }
static int32_t network_outputs(void *p) { return count(&self_of(p)->m, false); }
static void *network_port(void *p, bool input, int32_t i) {
	object *o = self_of(p);
	port *q = nth(&o->m, input, i);
	if (!q) return NULL;
	int k = (int)(q - o->m.ports);
	if (!o->tensors[k]) {
		o->tensors[k] = make(TENSOR, o->logger), live--;
		o->tensors[k]->at = q;
	}
	return o->tensors[k];
}
static void *network_input(void *p, int32_t i) { return network_port(p, true, i); }
static void *network_output(void *p, int32_t i) { return network_port(p, false, i); }
static void network_unmark(void *p, object *t) { (void)p, t->at->marked = false; }
static const char *tensor_name(void *p) { return self_of(p)->at->name; }
static int32_t tensor_type(void *p) { return self_of(p)->at->type; }
static dims tensor_dims(void *p) { return self_of(p)->at->shape; }

// config and profile

static void config_flag(void *p, int32_t flag, bool on) {
	object *o = self_of(p);
	if (flag == S->flag_fp16) o->fp16 = on;
	if (flag == S->flag_int8) o->int8 = on;
	if (flag == S->flag_tf32) o->tf32 = on;
}
static void config_set_flag(void *p, int32_t flag) { config_flag(p, flag, true); }
static void config_clear_flag(void *p, int32_t flag) { config_flag(p, flag, false); }
static int32_t config_add_profile(void *p, object *q) { return (void)p, q && q->kind == PROFILE ? 0 : -1; }
static bool config_calibration_profile(void *p, object *q) { return (void)p, q && q->kind == PROFILE; }
static void config_int(void *p, int32_t v) { (void)p, (void)v; }
static void config_int_bool(void *p, int32_t v, bool on) { (void)p, (void)v, (void)on; }
static bool config_tactics(void *p, uint32_t v) { return self_of(p)->tactics = v, !mode("no_tactics"); }
static uint32_t config_get_tactics(void *p) { return self_of(p)->tactics; }
static void config_pool(void *p, int32_t pool, size_t n) { (void)p, (void)pool, (void)n; }
static void *timing_create(void *p, const void *data, size_t n) {
	object *o = make(TIMING, self_of(p)->logger);
	o->bytes = calloc(1, n + 1), o->size = n;
	if (n && MAJOR == 8) say(o->logger, 1, "Myelin error from unknown graph"); // as 8.6.1 does, and uses the rest
	if (n) memcpy(o->bytes, data, n);
	return o;
}
static bool timing_set(void *p, object *t, bool ignore) { return (void)p, !ignore && (!t->size || !strncmp(t->bytes, "times", 5)); }
static void config_calibrator(void *p, void *c) { self_of(p)->calibrator = c; }
static void config_monitor(void *p, void *m) { self_of(p)->monitor = m; }
#if WIDE
static bool profile_dims(void *p, const char *name, int32_t selector, const dims *d) { return (void)p, name && selector < 3 && d->d[0] > 0; }
#else
static bool profile_dims(void *p, const char *name, int32_t selector, dims d) { return (void)p, name && selector < 3 && d.d[0] > 0; }
#endif

// Each build adds to the timings that it was given.
static void *timing_serialize(void *p) {
	object *t = self_of(p), *o = make(MEMORY, t->logger);
	o->bytes = calloc(1, t->size + 6), o->size = t->size + 5;
	memcpy(o->bytes, t->bytes, t->size), memcpy(o->bytes + t->size, "times", 5);
	return o;
}
static void *memory_data(void *p) { return self_of(p)->bytes; }
static size_t memory_size(void *p) { return self_of(p)->size; }

// runtime, engine, context

static void *runtime_deserialize(void *p, const void *data, size_t n) {
	if (mode("null_engine") || n != sizeof(model) + 4 || ((const char *)data)[sizeof(model)] != 'p') {
		say(self_of(p)->logger, 1, "magic tag does not match");
		return NULL;
	}
	object *o = make(ENGINE, self_of(p)->logger);
	memcpy(&o->m, data, sizeof(model));
	o->fp16 = ((const char *)data)[sizeof(model) + 1] == 'h', o->int8 = ((const char *)data)[sizeof(model) + 2] == 'i';
	return o;
}
static object *with_model(void *p, int kind) {
	object *e = self_of(p), *o = make(kind, e->logger);
	o->m = e->m, o->fp16 = e->fp16, o->int8 = e->int8;
	return o;
}
static void *engine_context(void *p) { return mode("null_context") ? NULL : with_model(p, CONTEXT); }
static void *engine_inspector(void *p) { return mode("null_inspector") ? NULL : with_model(p, INSPECTOR); }
static int32_t engine_tensors(void *p) { return count(&self_of(p)->m, true) + count(&self_of(p)->m, false); }
static const char *engine_tensor(void *p, int32_t i) {
	model *m = &self_of(p)->m;
	int ins = count(m, true);
	return (i < ins ? nth(m, true, i) : nth(m, false, ins + count(m, false) - 1 - i))->name; // outputs in an order of its own, as in 8.6.1
}
static port *named(model *m, const char *name) {
	for (int i = 0; i < m->n; i++)
		if (!strcmp(m->ports[i].name, name)) return &m->ports[i];
	trap();
	return NULL;
}
static dims engine_shape(void *p, const char *name) { return named(&self_of(p)->m, name)->shape; }
static int32_t engine_type(void *p, const char *name) { return named(&self_of(p)->m, name)->type; }
static int32_t engine_mode(void *p, const char *name) { return named(&self_of(p)->m, name)->input ? 1 : 2; }
static bool context_input_shape(void *p, const char *name, const dims *d) {
	if (mode("shape_fails")) return false;
	return named(&self_of(p)->m, name)->input && (self_of(p)->in = *d, true);
}
static dims context_shape(void *p, const char *name) {
	dims d = named(&self_of(p)->m, name)->shape;
	if (d.d[0] < 0) d.d[0] = self_of(p)->in.d[0];
	return d;
}
static bool context_address(void *p, const char *name, void *a) {
	model *m = &self_of(p)->m;
	return self_of(p)->address[named(m, name) - m->ports] = a, true;
}
static size_t elements(dims d) {
	size_t n = 1;
	for (int i = 0; i < d.n; i++) n *= d.d[i];
	return n;
}
static float half_to_float(uint16_t h) {
	if (!(h & 0x7fff)) return 0;
	uint32_t bits = (uint32_t)(h & 0x8000) << 16 | ((uint32_t)((h >> 10 & 31) - 15 + 127) << 23) | (uint32_t)(h & 1023) << 13;
	float f;
	memcpy(&f, &bits, 4);
	return f;
}
static uint16_t twice_half(uint16_t h) { return half_to_float(h) == 0 ? h : (uint16_t)(h + 0x400); }
static bool context_enqueue(void *p, void *stream) {
	object *o = self_of(p);
	if (!stream || mode("enqueue_fails")) {
		say(o->logger, 1, "enqueueV3: an illegal memory access was encountered");
		return false;
	}
	port *in = nth(&o->m, true, 0);
	void *from = o->address[in - o->m.ports];
	for (int i = 0; i < o->m.n; i++) {
		port *q = &o->m.ports[i];
		if (q->input || !q->marked) continue;
		size_t n = elements(context_shape(p, q->name)), have = elements(o->in);
		for (size_t k = 0; k < n && k < have; k++) {
			if (q->type == 1) ((uint16_t *)o->address[i])[k] = twice_half(((uint16_t *)from)[k]);
			else ((float *)o->address[i])[k] = 2 * ((float *)from)[k];
		}
	}
	return true;
}
static bool inspector_context(void *p, const object *context) {
	if (mode("no_inspection")) return false;
	return self_of(p)->in = context->in, true;
}
static const char *inspector_information(void *p, int32_t format) {
	if (format != 1) return NULL;
	if (mode("bad_json")) return "{";
	if (self_of(p)->in.d[0] <= 0) return "{\"Layers\": [{\"Name\": \"conv1\", \"LayerType\": \"CaskConvolution\", \"Inputs\": [{\"Format/Datatype\": \"N/A due to dynamic shapes\"}], \"Outputs\": []}]}";
	return self_of(p)->int8
		? "{\"Layers\": [{\"Name\": \"conv1\", \"LayerType\": \"CaskConvolution\", \"Inputs\": [{\"Name\": \"x\", \"Format/Datatype\": \"Four wide channel vectorized row major Int8 format\"}], \"Outputs\": []},"
		  "{\"Name\": \"reformat\", \"LayerType\": \"Reformat\", \"Inputs\": [{\"Format/Datatype\": \"Row major Int8 format\"}], \"Outputs\": [{\"Format/Datatype\": \"Row major linear FP32\"}]}, \"softmax\"], \"Bindings\": [\"x\"]}"
		: "{\"Layers\": [{\"Name\": \"conv1\", \"LayerType\": \"CaskConvolution\", \"Inputs\": [{\"Name\": \"x\", \"Format/Datatype\": \"Row major linear FP32\"}], \"Outputs\": []}], \"Bindings\": [\"x\"]}";
}

__attribute__((constructor)) static void fill(void) {
	S = qg_slots_of(MAJOR == 10 || MAJOR == 11 ? MAJOR : 8);
	for (int k = 0; k < KINDS; k++) {
		tables[k] = calloc(128, sizeof(void *));
		for (int i = 0; i < 128; i++) tables[k][i] = trap;
	}
#define PUT(kind, field, f) if (S->field >= 0) tables[kind][S->field] = f
	PUT(BUILDER, builder_config, builder_config);
	PUT(BUILDER, builder_network, builder_network);
	PUT(BUILDER, builder_profile, builder_profile);
	PUT(BUILDER, builder_build, builder_build);
	tables[NETWORK][100] = network_fill;
	PUT(NETWORK, network_inputs, network_inputs);
	PUT(NETWORK, network_outputs, network_outputs);
	PUT(NETWORK, network_input, network_input);
	PUT(NETWORK, network_output, network_output);
	PUT(NETWORK, network_unmark, network_unmark);
	PUT(TENSOR, tensor_name, tensor_name);
	PUT(TENSOR, tensor_type, tensor_type);
	PUT(TENSOR, tensor_dims, tensor_dims);
	PUT(CONFIG, config_set_flag, config_set_flag);
	PUT(CONFIG, config_clear_flag, config_clear_flag);
	PUT(CONFIG, config_add_profile, config_add_profile);
	PUT(CONFIG, config_calibration_profile, config_calibration_profile);
	PUT(CONFIG, config_verbosity, config_int);
	PUT(CONFIG, config_level, config_int);
	PUT(CONFIG, config_preview, config_int_bool);
	PUT(CONFIG, config_tactics, config_tactics);
	PUT(CONFIG, config_get_tactics, config_get_tactics);
	PUT(CONFIG, config_pool, config_pool);
	PUT(CONFIG, config_timing_create, timing_create);
	PUT(CONFIG, config_timing_set, timing_set);
	PUT(CONFIG, config_calibrator, config_calibrator);
	PUT(CONFIG, config_monitor, config_monitor);
	PUT(PROFILE, profile_dims, profile_dims);
	PUT(TIMING, timing_serialize, timing_serialize);
	PUT(MEMORY, memory_data, memory_data);
	PUT(MEMORY, memory_size, memory_size);
	PUT(RUNTIME, runtime_deserialize, runtime_deserialize);
	PUT(ENGINE, engine_context, engine_context);
	PUT(ENGINE, engine_inspector, engine_inspector);
	PUT(ENGINE, engine_tensors, engine_tensors);
	PUT(ENGINE, engine_tensor, engine_tensor);
	PUT(ENGINE, engine_shape, engine_shape);
	PUT(ENGINE, engine_type, engine_type);
	PUT(ENGINE, engine_mode, engine_mode);
	PUT(CONTEXT, context_input_shape, context_input_shape);
	PUT(CONTEXT, context_shape, context_shape);
	PUT(CONTEXT, context_address, context_address);
	PUT(CONTEXT, context_enqueue, context_enqueue);
	PUT(INSPECTOR, inspector_context, inspector_context);
	PUT(INSPECTOR, inspector_information, inspector_information);
}

int32_t getInferLibVersion(void) { return VERSION; }

// The real one keeps the first logger that it is given; with one_logger another is refused.
static bool known(void *logger) {
	static void *first;
	if (!first) first = logger;
	return !mode("one_logger") || first == logger;
}
#ifndef NO_BUILDER
void *createInferBuilder_INTERNAL(void *logger, int32_t version) {
	if (version != VERSION || !known(logger)) return NULL;
	if (mode("null_builder")) {
		say(logger, 1, "CUDA initialization failure with error: 35");
		return NULL;
	}
	return make(BUILDER, logger);
}
#endif
void *createInferRuntime_INTERNAL(void *logger, int32_t version) {
	if (mode("null_runtime")) return WIDE ? (void *)0x238 : NULL; // as 10.15.1 does without CUDA
	return version != VERSION || !known(logger) ? NULL : make(RUNTIME, logger);
}
