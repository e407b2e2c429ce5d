# One interface target carries every compiler and linker flag; every target of ours links it.
add_library(postern_flags INTERFACE)
target_include_directories(postern_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(postern_flags INTERFACE _GNU_SOURCE POSTERN_VERSION="${PROJECT_VERSION}")

set(warnings
	-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wpointer-arith -Wcast-qual
	-Wwrite-strings -Wvla -Wnull-dereference -Wdouble-promotion -Wimplicit-fallthrough)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
	list(APPEND warnings
		-Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wjump-misses-init
		-Warith-conversion -Wformat-truncation=1 -Wstringop-overflow=4)
else()
	list(APPEND warnings
		# libseccomp's own macros leave fields out.
		-Wno-missing-field-initializers
		-Wcomma -Wassign-enum -Wmissing-variable-declarations
		-Wunreachable-code-aggressive -Wshorten-64-to-32 -Wthread-safety)
endif()
if(WERROR)
	list(APPEND warnings -Werror)
endif()

target_compile_options(postern_flags INTERFACE
	${warnings} -g -fvisibility=hidden -fno-omit-frame-pointer -fasynchronous-unwind-tables
	-fno-strict-overflow -fno-delete-null-pointer-checks)

if(HARDEN)
	target_compile_options(postern_flags INTERFACE
		-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
		-fstack-clash-protection)
	if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
		target_compile_options(postern_flags INTERFACE -fcf-protection=full)
	else()
		target_compile_options(postern_flags INTERFACE -mbranch-protection=standard)
	endif()
	if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
		target_compile_options(postern_flags INTERFACE -ftrivial-auto-var-init=zero)
	endif()
	target_link_options(postern_flags INTERFACE
		-Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code,--as-needed)
endif()
if(SANITIZE)
	target_compile_options(postern_flags INTERFACE
		-fsanitize=${SANITIZE} -fno-sanitize-recover=all)
	target_link_options(postern_flags INTERFACE -fsanitize=${SANITIZE})
endif()
if(COVERAGE)
	target_compile_options(postern_flags INTERFACE --coverage)
	target_link_options(postern_flags INTERFACE --coverage)
endif()
