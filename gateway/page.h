/*
 * page.h - the page at "/": static, without data, no sign-in needed to load it.
 *
 * It is gateway/page.html as it stands.  Its token lives in the page's memory alone; everything it
 * shows it asks for with that token, or by the browser's certificate.
 */
#ifndef GATEWAY_PAGE_H
#define GATEWAY_PAGE_H

#include "base/sv.h"

struct sv page_html(void);

/* Value of its Content-Security-Policy: its own script and style, by their hashes, and requests to
 * where it came from; nothing else, and in no frame. */
const char *page_policy(void);

#endif
