#include "profile/top.h"

#include <stdlib.h>

#include "profile/units.h"

/*
 * A node is a function by name. `node_of` gives the node of every line of every location, so that
 * walking the samples needs no look-up of names. Edges are kept only to tell which calls of a
 * function are inlined ones.
 */
struct node {
	struct top_row row;
	size_t seen; /* the last sample (its number + 1) that counted for cum */
	bool is_kept, is_called, is_called_inline;
};

struct edge {
	uint32_t parent, child; /* child PROFILE_NONE: the place is free */
	bool is_inline;
	size_t seen; /* the last sample that counted for the weight */
	int64_t weight;
};

struct counter {
	const struct profile *profile;
	size_t type;
	struct node *nodes;
	size_t nodes_len;
	uint32_t *names; /* hash table of nodes */
	size_t names_cap;
	uint32_t *first_line; /* of each location: where its lines' nodes begin in node_of */
	uint32_t *node_of;
	struct edge *edges; /* hash table */
	size_t edges_len, edges_cap;
	struct err *err;
};

static int fail_memory(const struct counter *c)
{
	return err_set(c->err, ERR_NOMEM, "out of memory");
}

static int64_t magnitude(int64_t value)
{
	if (value >= 0)
		return value;
	return value == INT64_MIN ? INT64_MAX : -value;
}

/* A sum that ends at the limits: a hostile file must not overflow it. */
static void add(int64_t *sum, int64_t value)
{
	if (__builtin_add_overflow(*sum, value, sum))
		*sum = value > 0 ? INT64_MAX : INT64_MIN;
}

static size_t power_of_two_over(size_t n)
{
	size_t size = 16;

	while (size < n)
		size *= 2;
	return size;
}

/* ---- nodes */

static struct sv base_name(struct sv path)
{
	for (size_t i = path.len; i > 0; i--)
		if (path.ptr[i - 1] == '/')
			return (struct sv){ path.ptr + i, path.len - i };
	return path;
}

static size_t hash_text(struct sv text, bool is_mapping)
{
	uint64_t h = is_mapping ? 0x9e3779b97f4a7c15 : 0xcbf29ce484222325;

	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (unsigned char)text.ptr[i]) * 0x100000001b3;
	return (size_t)(h ^ h >> 29);
}

static uint32_t find_node(struct counter *c, struct sv name, bool is_mapping)
{
	size_t at = hash_text(name, is_mapping);
	struct node *node;

	for (;; at++) {
		uint32_t found = c->names[at & (c->names_cap - 1)];

		if (found == PROFILE_NONE)
			break;
		node = &c->nodes[found];
		if (node->row.is_mapping == is_mapping && sv_is(node->row.name, name))
			return found;
	}
	c->names[at & (c->names_cap - 1)] = (uint32_t)c->nodes_len;
	node = &c->nodes[c->nodes_len];
	*node = (struct node){ .row = { .name = name, .is_mapping = is_mapping } };
	node->is_kept = true;
	return (uint32_t)c->nodes_len++;
}

static uint32_t node_of_line(
	struct counter *c, const struct profile_location *location, uint32_t function)
{
	const struct profile *p = c->profile;
	struct sv file = SV("");

	if (function != PROFILE_NONE && p->functions[function].name.len > 0)
		return find_node(c, p->functions[function].name, false);
	if (function != PROFILE_NONE && p->functions[function].system_name.len > 0)
		return find_node(c, p->functions[function].system_name, false);
	if (location->mapping != PROFILE_NONE)
		file = base_name(p->mappings[location->mapping].file);
	return find_node(c, file, true);
}

static int make_nodes(struct counter *c)
{
	const struct profile *p = c->profile;
	size_t lines = 0;

	for (size_t i = 0; i < p->locations_len; i++)
		lines += p->locations[i].lines_len ? p->locations[i].lines_len : 1;
	/* There are no more names than functions and mappings, and the one for nothing known. */
	c->names_cap = power_of_two_over(2 * (2 * p->functions_len + p->mappings_len + 1));
	c->nodes = calloc(2 * p->functions_len + p->mappings_len + 1, sizeof(*c->nodes));
	c->names = calloc(c->names_cap, sizeof(*c->names));
	c->first_line = calloc(p->locations_len + 1, sizeof(*c->first_line));
	c->node_of = calloc(lines + 1, sizeof(*c->node_of));
	if (!c->nodes || !c->names || !c->first_line || !c->node_of)
		return fail_memory(c);
	for (size_t i = 0; i < c->names_cap; i++)
		c->names[i] = PROFILE_NONE;
	lines = 0;
	for (size_t i = 0; i < p->locations_len; i++) {
		const struct profile_location *location = &p->locations[i];

		c->first_line[i] = (uint32_t)lines;
		if (location->lines_len == 0)
			c->node_of[lines++] = node_of_line(c, location, PROFILE_NONE);
		for (size_t j = 0; j < location->lines_len; j++)
			c->node_of[lines++] =
				node_of_line(c, location, location->lines[j].function);
	}
	c->first_line[p->locations_len] = (uint32_t)lines;
	return 0;
}

/* ---- edges */

static size_t hash_edge(uint32_t parent, uint32_t child)
{
	uint64_t h = ((uint64_t)parent << 32 | child) * 0x9e3779b97f4a7c15;

	return (size_t)(h ^ h >> 32);
}

static struct edge *find_edge(struct counter *c, uint32_t parent, uint32_t child)
{
	for (size_t at = hash_edge(parent, child);; at++) {
		struct edge *edge = &c->edges[at & (c->edges_cap - 1)];

		if (edge->child == PROFILE_NONE ||
			(edge->parent == parent && edge->child == child))
			return edge;
	}
}

static int grow_edges(struct counter *c)
{
	struct edge *old = c->edges;
	size_t old_cap = c->edges_cap;

	c->edges_cap = old_cap ? old_cap * 2 : 1024;
	c->edges = calloc(c->edges_cap, sizeof(*c->edges));
	if (!c->edges) {
		c->edges = old;
		c->edges_cap = old_cap;
		return fail_memory(c);
	}
	for (size_t i = 0; i < c->edges_cap; i++)
		c->edges[i].child = PROFILE_NONE;
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].child != PROFILE_NONE)
			*find_edge(c, old[i].parent, old[i].child) = old[i];
	free(old);
	return 0;
}

static int count_edge(struct counter *c, uint32_t parent, uint32_t child, bool is_inline,
	size_t sample, int64_t weight)
{
	struct edge *edge;

	if (c->edges_len * 2 >= c->edges_cap && grow_edges(c))
		return -1;
	edge = find_edge(c, parent, child);
	if (edge->child == PROFILE_NONE) {
		*edge = (struct edge){ parent, child, is_inline, 0, 0 };
		c->edges_len++;
	}
	if (edge->seen == sample)
		return 0;
	edge->seen = sample;
	edge->is_inline = edge->is_inline && is_inline;
	add(&edge->weight, weight);
	return 0;
}

/* ---- counting */

/* From the root to the leaf, outer frames before those inlined into them. */
static int count_sample(struct counter *c, size_t number, bool with_edges)
{
	const struct profile_sample *sample = &c->profile->samples[number];
	int64_t weight = sample->values[c->type];
	uint32_t parent = PROFILE_NONE;
	bool ends_here = true;

	if (weight == 0)
		return 0;
	for (size_t i = sample->locations_len; i-- > 0;) {
		uint32_t first = c->first_line[sample->locations[i]];
		uint32_t end = c->first_line[sample->locations[i] + 1];

		for (uint32_t line = end; line-- > first;) {
			uint32_t index = c->node_of[line];
			struct node *node = &c->nodes[index];

			ends_here = node->is_kept;
			if (!node->is_kept)
				continue;
			if (node->seen != number + 1 && !with_edges)
				add(&node->row.cum, weight);
			node->seen = number + 1;
			if (with_edges && parent != PROFILE_NONE && parent != index &&
				count_edge(
					c, parent, index, line != end - 1, number + 1, weight))
				return -1;
			parent = index;
		}
	}
	if (parent != PROFILE_NONE && ends_here && !with_edges)
		add(&c->nodes[parent].row.flat, weight);
	return 0;
}

static int count_all(struct counter *c, bool with_edges)
{
	for (size_t i = 0; i < c->profile->samples_len; i++)
		if (count_sample(c, i, with_edges))
			return -1;
	return 0;
}

/* Which functions were called as inlined code, by the edges that are not negligible. */
static void mark_inlined(struct counter *c, int64_t cutoff)
{
	for (size_t i = 0; i < c->edges_cap; i++) {
		const struct edge *edge = &c->edges[i];

		if (edge->child == PROFILE_NONE || magnitude(edge->weight) < cutoff)
			continue;
		if (edge->is_inline)
			c->nodes[edge->child].is_called_inline = true;
		else
			c->nodes[edge->child].is_called = true;
	}
}

/* ---- rows */

static int compare_rows(const void *a, const void *b)
{
	const struct top_row *x = a, *y = b;
	int64_t flat_x = magnitude(x->flat), flat_y = magnitude(y->flat);
	int64_t cum_x = magnitude(x->cum), cum_y = magnitude(y->cum);
	size_t common = x->name.len < y->name.len ? x->name.len : y->name.len;
	int order;

	if (flat_x != flat_y)
		return flat_x > flat_y ? -1 : 1;
	order = common ? memcmp(x->name.ptr, y->name.ptr, common) : 0;
	if (order == 0)
		order = (x->name.len > y->name.len) - (x->name.len < y->name.len);
	if (order == 0)
		order = (cum_x < cum_y) - (cum_x > cum_y);
	return order;
}

static void choose_unit(struct top *top)
{
	int64_t least = 0;

	for (size_t i = 0; i < top->rows_len; i++) {
		int64_t value = magnitude(top->rows[i].flat);

		if (value == 0)
			value = magnitude(top->rows[i].cum);
		if (value > 0 && (least == 0 || value < least))
			least = value;
	}
	top->unit_shown = units_choose(least ? least : top->total, top->total, top->unit);
}

static int make_rows(struct counter *c, struct top *top, size_t limit)
{
	top->rows = calloc(c->nodes_len + 1, sizeof(*top->rows));
	if (!top->rows)
		return fail_memory(c);
	for (size_t i = 0; i < c->nodes_len; i++) {
		struct node *node = &c->nodes[i];

		if (!node->is_kept || node->seen == 0)
			continue;
		if (node->is_called_inline)
			node->row.inlined = node->is_called ? TOP_PARTLY_INLINED : TOP_INLINED;
		top->rows[top->kept++] = node->row;
	}
	qsort(top->rows, top->kept, sizeof(*top->rows), compare_rows);
	top->rows_len = limit && limit < top->kept ? limit : top->kept;
	for (size_t i = 0; i < top->rows_len; i++)
		add(&top->shown, top->rows[i].flat);
	choose_unit(top);
	return 0;
}

/* A fraction of the sum of all flat values, as an edge or a function must have to be shown. */
static int64_t share(const struct counter *c, double fraction)
{
	int64_t sum = 0;

	for (size_t i = 0; i < c->nodes_len; i++)
		add(&sum, c->nodes[i].row.flat);
	return (int64_t)((double)magnitude(sum) * fraction);
}

static void drop_small(struct counter *c, struct top *top, int64_t cutoff)
{
	for (size_t i = 0; i < c->nodes_len; i++) {
		struct node *node = &c->nodes[i];

		if (node->seen == 0 || magnitude(node->row.cum) >= cutoff)
			continue;
		node->is_kept = false;
		top->dropped++;
	}
}

static int count(struct counter *c, struct top *top, size_t limit)
{
	int64_t cutoff;

	for (size_t i = 0; i < c->profile->samples_len; i++)
		add(&top->total, magnitude(c->profile->samples[i].values[c->type]));
	if (make_nodes(c) || count_all(c, false))
		return -1;
	cutoff = share(c, 0.005);
	top->cutoff = (int64_t)((double)top->total * 0.005);
	drop_small(c, top, cutoff);
	if (count_all(c, true))
		return -1;
	mark_inlined(c, share(c, 0.001));
	return make_rows(c, top, limit);
}

int top_new(const struct profile *profile, size_t type, size_t limit, struct top **out,
	struct err *err)
{
	struct counter c = { .profile = profile, .type = type, .err = err };
	struct top *top = calloc(1, sizeof(*top));
	int rc = -1;

	if (!top)
		return fail_memory(&c);
	top->unit = profile->types[type].unit;
	rc = count(&c, top, limit);
	free(c.nodes);
	free(c.names);
	free(c.first_line);
	free(c.node_of);
	free(c.edges);
	if (rc == 0)
		*out = top;
	else
		top_free(top);
	return rc;
}

void top_free(struct top *top)
{
	if (!top)
		return;
	free(top->rows);
	free(top);
}
