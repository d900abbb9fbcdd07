// The ONNX parser that goes with fake_nvinfer.c.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slots.h"

typedef struct {
	void **table;
	void *network;
	bool failed;
} parser;

static void trap(void) { abort(); }

static bool fake_mode(const char *what) {
	const char *m = getenv("FAKE_TRT");
	return m && !strcmp(m, what);
}

static bool parse(parser *p, const void *data, size_t size, const char *path) {
	(void)path;
	void *impl = ((void **)p->network)[1];
	p->failed = fake_mode("parse_fails") || !((bool (*)(void *, const char *, size_t))(*(void ***)impl)[100])(impl, data, size);
	return !p->failed;
}

static bool parse_file(parser *p, const char *path, int verbosity) {
	(void)verbosity;
	char text[4096];
	FILE *f = fopen(path, "rb");
	size_t n = f ? fread(text, 1, sizeof text, f) : 0;
	if (f) fclose(f);
	return parse(p, text, n, path);
}

static int errors(parser *p) { return p->failed && !fake_mode("no_error_text"); }
static const char *error_text(void *e) { return (void)e, "Assertion failed: (weights.is_weights())\n&& \"no\""; }
static int error_node(void *e) { return (void)e, 7; }
static void *error_table[16];
static void *error_object[1] = {error_table};
static void *error(parser *p, int i) { return p->failed && !i ? error_object : NULL; }
static void delete(void *p) { free(p); }

int getNvOnnxParserVersion(void) { return 100; }

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
	static void *table[32];
	const qg_slots *s = qg_slots_of(MAJOR);
	if (!logger || version != 100 || fake_mode("null_parser")) return NULL;
	for (int i = 0; i < 32; i++) table[i] = trap;
	for (int i = 0; i < 16; i++) error_table[i] = trap;
	table[s->parser_parse] = parse;
	table[s->parser_file] = parse_file;
	table[s->parser_errors] = errors;
	table[s->parser_error] = error;
	table[s->parser_delete] = delete;
	error_table[s->parser_error_text] = error_text;
	error_table[s->parser_error_node] = error_node;
	parser *p = calloc(1, sizeof *p);
	p->table = table;
	p->network = network;
	return p;
}
