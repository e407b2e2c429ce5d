# The sampler for aarch64 on another machine: Debian's cross compiler, the libraries that
# packaging/foreign-packages has unpacked, and qemu-user for the tests.  (LD_BIND_NOW: libgcc, with which
# the unwinder is compared, loses its way in the loader's resolver.)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(FOREIGN_ROOT ${CMAKE_CURRENT_LIST_DIR}/../build/arm64 CACHE PATH "Where the libraries are")
get_filename_component(root ${FOREIGN_ROOT} ABSOLUTE)
set(libraries ${root}/usr/lib/aarch64-linux-gnu)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES FOREIGN_ROOT)

set(CMAKE_FIND_ROOT_PATH ${root} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${libraries}/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${root})
set(CMAKE_CROSSCOMPILING_EMULATOR
	qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=${libraries} -E LD_BIND_NOW=1)
