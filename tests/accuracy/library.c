/* The same four, to be found in a library that is loaded while the program runs. */
#include "tests/accuracy/shares.h"

SHARES(spin)
