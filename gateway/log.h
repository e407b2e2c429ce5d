/*
 * log.h - lines for the operator, on standard error or to syslog, as text or JSON.
 */
#ifndef GATEWAY_LOG_H
#define GATEWAY_LOG_H

#include "conf/conf.h"

/* Until called: text, level info, standard error. `role` ("keeper", "worker", "scribe") is kept. */
void log_setup(const char *role, enum conf_log_level level, bool json, bool to_syslog);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
