/* Which sources the library was compiled from. */

#include "kernels.h"

/* The digest of the sources, which the build hands over. */
KERNEL const char *jaxperf_sources(void) { return JAXPERF_SOURCES; }
