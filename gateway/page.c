#include "gateway/page.h"

/* Made from page.html by CMakeLists.txt. */
extern const unsigned char page_bytes[];
extern const unsigned long page_bytes_len;

struct sv page_html(void)
{
	return (struct sv){ (const char *)page_bytes, page_bytes_len };
}

/* The hashes are checked by tests/unit/test_page.c, which says what they should be. */
const char *page_policy(void)
{
	return "default-src 'none'; "
	       "script-src 'sha256-m+zmyRLo3SQjlB6julO3yfo5B/ILjZIWWpBspXyU5t4='; "
	       "style-src 'sha256-BE7FNcjbY69yn7ZVMPZ4MOQNLbZSLUhvmVb1WFGmJF0='; "
	       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
	       "'none'";
}
