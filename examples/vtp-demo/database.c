#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/vtp-demo/demo.h"

struct database {
	sqlite3 *sqlite;
	sqlite3_stmt *courses, *courses_slowly, *recordings;
};

/* 400 courses in 8 topics, 20 recordings each. */
static const char schema[] =
	"CREATE TABLE courses (id INTEGER PRIMARY KEY, topic INTEGER, title TEXT);"
	"CREATE TABLE recordings (id INTEGER PRIMARY KEY, course INTEGER, title TEXT, seconds "
	"INTEGER);"
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
	"  INSERT INTO courses SELECT i, i % 8, 'Course ' || i FROM n;"
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)"
	"  INSERT INTO recordings SELECT i, i % 400 + 1, 'Recording ' || i, i * 7919 % 3600 "
	"FROM n;"
	"CREATE INDEX recordings_of_course ON recordings (course);";

static const char courses_sql[] =
	"SELECT json_group_array(json_object('id', id, 'title', title, 'recordings', n, "
	"'seconds', total)) FROM (SELECT c.id, c.title, count(*) AS n, sum(r.seconds) AS total "
	"FROM courses c JOIN recordings r ON r.course = c.id WHERE c.topic = ?1 "
	"GROUP BY c.id ORDER BY total DESC LIMIT 20)";

/* The same, asked so that no index helps: a function on both sides of the join. */
static const char courses_slowly_sql[] =
	"SELECT json_group_array(json_object('id', id, 'title', title, 'recordings', n, "
	"'seconds', total)) FROM (SELECT c.id, c.title, count(*) AS n, sum(r.seconds) AS total "
	"FROM courses c JOIN recordings r ON upper(r.course) = upper(c.id) WHERE c.topic = ?1 "
	"GROUP BY c.id ORDER BY total DESC LIMIT 20)";

static const char recordings_sql[] =
	"SELECT json_group_array(json_object('id', id, 'title', title, 'seconds', seconds)) "
	"FROM (SELECT * FROM recordings WHERE course = ?1 ORDER BY seconds DESC)";

void database_close(struct database *database)
{
	if (!database)
		return;
	(void)sqlite3_finalize(database->courses);
	(void)sqlite3_finalize(database->courses_slowly);
	(void)sqlite3_finalize(database->recordings);
	(void)sqlite3_close(database->sqlite);
	free(database);
}

struct database *database_open(void)
{
	struct database *database = calloc(1, sizeof(*database));
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
	sqlite3 *db;

	if (!database)
		return NULL;
	if (sqlite3_open_v2(":memory:", &database->sqlite, flags, NULL) != SQLITE_OK)
		goto fail;
	db = database->sqlite;
	if (sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK ||
		sqlite3_prepare_v2(db, courses_sql, -1, &database->courses, NULL) ||
		sqlite3_prepare_v2(
			db, courses_slowly_sql, -1, &database->courses_slowly, NULL) ||
		sqlite3_prepare_v2(db, recordings_sql, -1, &database->recordings, NULL))
		goto fail;
	return database;
fail:
	(void)fprintf(stderr, "vtp-demo: database: %s\n", sqlite3_errmsg(database->sqlite));
	database_close(database);
	return NULL;
}

static char *run_query(sqlite3_stmt *statement, unsigned parameter)
{
	struct postern_region region = watch_begin("database");
	char *answer = NULL;

	if (sqlite3_bind_int64(statement, 1, parameter) == SQLITE_OK &&
		sqlite3_step(statement) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(statement, 0);

		answer = text ? strdup(text) : NULL;
	}
	(void)sqlite3_reset(statement);
	watch_end(&region);
	return answer;
}

/* A function of its own, and no static one that the compiler could specialise under another name:
 * a profile is to tell the slow query from the quick one. */
char *query_slowly(struct database *database, unsigned topic);

__attribute__((noinline)) char *query_slowly(struct database *database, unsigned topic)
{
	return run_query(database->courses_slowly, topic);
}

char *database_courses(struct database *database, unsigned topic)
{
	if (atomic_load(&demo_switches[SWITCH_SLOW_QUERY]))
		return query_slowly(database, topic % 8);
	return run_query(database->courses, topic % 8);
}

char *database_recordings(struct database *database, unsigned course)
{
	return run_query(database->recordings, course % 400 + 1);
}
