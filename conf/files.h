/*
 * files.h - the two ways in which a configuration gets at the bytes of the files that it names.
 */
#ifndef CONF_FILES_H
#define CONF_FILES_H

#include "conf/conf.h"

/* From disk, remembering what was read. A file, or the folder it lies in, that others than its
 * owner (root or us) may write is refused; a secret one that others may read, too. */
struct conf_files *conf_files_disk(void);

/* From disk, whoever may write there: for a look at a configuration, not for serving by it. */
struct conf_files *conf_files_unchecked(void);

/* Pack the effective text and every file that was read into one message, to be laid in a sealed
 * memory file; and the other way round. The views point into `packed`, which must stay. */
void conf_files_pack(struct conf_files *files, struct sv conf_text, struct buf *out);
struct conf_files *conf_files_packed(struct sv packed, struct sv *conf_text, struct err *err);

void conf_files_free(struct conf_files *files);

#endif
