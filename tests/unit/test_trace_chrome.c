#include "tests/unit/unit.h"

#include <jansson.h>
#include <string.h>

#include "sampler/store/depot.h"
#include "sampler/store/labels.h"
#include "sampler/store/log.h"
#include "sampler/write/trace.h"
#include "sampler/write/trace_chrome.h"

#define START 1000

static struct arena arena;
static struct buf all, out;

static uint32_t text(const char *words)
{
	return labels_text_sigsafe(sv_from_cstr(words));
}

static uint32_t stack(void)
{
	uintptr_t pcs[2] = { (uintptr_t)stack + 1, (uintptr_t)text + 1 };

	return depot_put_sigsafe(pcs, 2, UNWIND_COMPLETE);
}

static struct trace_chrome *begin(void)
{
	struct trace_chrome *writer;

	assert_int_equal(arena_open(&arena, (size_t)1 << 30), 0);
	assert_int_equal(arena_buf(&arena, (size_t)64 << 20, &all), 0);
	assert_int_equal(arena_buf(&arena, TRACE_ROOM, &out), 0);
	writer = trace_chrome_begin(&arena, "pro\"gram", START, &out);
	assert_non_null(writer);
	return writer;
}

/* As if it had been sent. */
static void send_out(void)
{
	assert_false(out.failed);
	buf_add_sv(&all, buf_sv(&out));
	buf_clear(&out);
}

static void add(struct trace_chrome *writer, const struct trace_event *event)
{
	trace_chrome_add(writer, event, &out);
	send_out();
}

/* The events; the whole must be JSON. */
static json_t *finish(struct trace_chrome *writer, uint64_t end_ns, json_t **root)
{
	json_error_t error;
	bool done = false;

	while (!done) {
		done = trace_chrome_finish(writer, end_ns, &out);
		send_out();
	}
	assert_false(all.failed);
	*root = json_loadb(all.ptr, all.len, 0, &error);
	if (!*root)
		fail_msg("%s at %d", error.text, error.position);
	arena_close(&arena);
	return json_object_get(*root, "traceEvents");
}

static const char *string_of(json_t *event, const char *name)
{
	const char *value = json_string_value(json_object_get(event, name));

	return value ? value : "";
}

static void test_a_wait(void **state)
{
	struct trace_chrome *writer = begin();
	json_t *root, *events, *args;

	(void)state;
	add(writer, &(struct trace_event){ .kind = TRACE_THREAD,
			    .tid = 7,
			    .text = text("\xff\"name\n"),
			    .time_ns = START });
	add(writer, &(struct trace_event){ .kind = TRACE_OFF,
			    .detail = TRACE_OFF_IO,
			    .tid = 7,
			    .time_ns = START + 2500 });
	add(writer, &(struct trace_event){ .kind = TRACE_STACK, .tid = 7, .stack = stack() });
	add(writer,
		&(struct trace_event){ .kind = TRACE_ON, .tid = 7, .time_ns = START + 7001 });
	events = finish(writer, START + 9000, &root);
	assert_int_equal(json_array_size(events), 4);
	assert_string_equal(string_of(json_array_get(events, 2), "ph"), "B");
	assert_string_equal(string_of(json_array_get(events, 2), "name"), "IO wait");
	assert_true(json_real_value(json_object_get(json_array_get(events, 2), "ts")) == 2.5);
	assert_true(json_real_value(json_object_get(json_array_get(events, 3), "ts")) == 7.001);
	args = json_object_get(json_array_get(events, 3), "args");
	assert_string_equal(
		json_string_value(json_array_get(json_object_get(args, "stack"), 0)), "stack");
	json_decref(root);
}

static struct trace_event random_event(uint32_t *random, uint64_t *time)
{
	struct trace_event event;

	*random = *random * 1103515245 + 12345;
	*time += *random >> 28;
	event = (struct trace_event){
		.kind = (uint8_t)(1 + (*random >> 8) % TRACE_HEAP),
		.detail = (uint8_t)((*random >> 12) % (TRACE_OFFS + 1)),
		.tid = 1 + (*random >> 16) % 6,
		.stack = *random & 1 ? stack() : 0,
		.text = *random & 2 ? text("name") : text("other"),
		.time_ns = *time,
		.value = (*random >> 20) % 7,
	};
	if (event.kind == TRACE_LOG)
		event.value = log_put_sigsafe(SV("li\"ne"));
	return event;
}

/* Whatever comes in whatever order: every slice that begins ends, innermost first, and time does not go
 * back. */
static void test_any_events(void **state)
{
	uint32_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		struct trace_chrome *writer = begin();
		long depth[64] = { 0 };
		uint64_t time = START;
		double last = 0;
		json_t *root, *events;

		for (unsigned i = 0; i < 1000; i++) {
			struct trace_event event = random_event(&random, &time);

			add(writer, &event);
		}
		events = finish(writer, time, &root);
		for (size_t i = 0; i < json_array_size(events); i++) {
			json_t *event = json_array_get(events, i);
			const char *phase = string_of(event, "ph");
			json_int_t tid =
				json_integer_value(json_object_get(event, "tid")) % 10000000;

			if (*phase == 'M')
				continue;
			assert_true(json_number_value(json_object_get(event, "ts")) >= last);
			last = json_number_value(json_object_get(event, "ts"));
			depth[tid] += *phase == 'B' ? 1 : *phase == 'E' ? -1 : 0;
			assert_true(depth[tid] >= 0);
		}
		for (size_t i = 0; i < COUNT(depth); i++)
			assert_int_equal(depth[i], 0);
		json_decref(root);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_wait),
		cmocka_unit_test(test_any_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
