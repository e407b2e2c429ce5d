/*
 * status.h - the reason phrase that goes with a status code (RFC 9110 section 15).
 */
#ifndef HTTP_STATUS_H
#define HTTP_STATUS_H

/* "Status" for one that is not in the list. Static text. */
const char *http_reason(unsigned status);

#endif
