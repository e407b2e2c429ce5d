/*
 * chain.h - the hash chain over audit lines.
 *
 * A line is one JSON object that ends in  ,"prev":"H","hash":"H"}  and a newline.  `prev` is the
 * hash of the line before (64 zeros for the first), `hash` is SHA-256, or HMAC-SHA256 with a key,
 * over the bytes of the line up to and including the comma before "hash".  So anybody can check a
 * file with a few lines of script; an unkeyed chain shows accidents and edits by someone who does
 * not recompute it, and a rewritten or cut one shows against a head that was kept elsewhere.
 */
#ifndef AUDIT_CHAIN_H
#define AUDIT_CHAIN_H

#include <stdint.h>

#include "audit/record.h"

#define AUDIT_HASH_SIZE     32
#define AUDIT_HASH_HEX_SIZE 65

struct audit_head {
	uint64_t seq;                   /* of the last line; 0 before the first */
	char hash[AUDIT_HASH_HEX_SIZE]; /* of the last line, lower-case hex; 64 zeros before */
};

struct audit_chain {
	struct audit_head head;
	struct sv key; /* empty: SHA-256; borrowed */
};

void audit_chain_init(struct audit_chain *chain, struct sv key);

/* Append the record's line to `out` with the next sequence number, and move the head on. -1 (and
 * the head stays) when it does not fit. */
int audit_chain_append(struct audit_chain *chain, const struct audit_record *record,
	int64_t unix_us, struct buf *out, struct err *err);

/* Check one line (without its newline) against the head and move the head on. -1: `err` says what
 * is wrong with it. */
int audit_chain_verify(struct audit_chain *chain, struct sv line, struct err *err);

/* Go on after a file whose last line this is: read its seq and hash, checking the hash. */
int audit_chain_resume(struct audit_chain *chain, struct sv last_line, struct err *err);

#endif
