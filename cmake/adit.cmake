# Flags that every target of ours is built with, and the two functions that make targets.

add_library(adit_flags INTERFACE)
target_compile_options(adit_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -fstack-protector-strong -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # At -O3, g++ 12 sees overlaps in std::string's own code that are not there (GCC bug 105651), and reads behind small
  # vectors on paths that a size check excludes (GCC bug 105562 and its kin). clang and g++ 13 keep these warnings as errors.
  target_compile_options(adit_flags INTERFACE
    -Wno-restrict -Wno-error=array-bounds -Wno-error=stringop-overflow -Wno-error=stringop-overread)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # libstdc++ 12's stable_sort calls a function that it has itself marked deprecated, and clang reports that as ours.
  target_compile_options(adit_flags INTERFACE -Wno-error=deprecated-declarations)
endif()
# The standard library's own cheap checks stay on in release: an index out of range is our fault, and is never ignored.
target_compile_definitions(adit_flags INTERFACE _GLIBCXX_ASSERTIONS
  BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_TS_EXECUTORS)
target_include_directories(adit_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(ADIT_SANITIZE)
  target_compile_options(adit_flags INTERFACE -fsanitize=${ADIT_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(adit_flags INTERFACE -fsanitize=${ADIT_SANITIZE})
  if(ADIT_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ warns that fences are not instrumented; we use none, Asio has one in a path that runs on one thread here.
    target_compile_options(adit_flags INTERFACE -Wno-tsan)
  endif()
else()
  target_compile_definitions(adit_flags INTERFACE $<$<CONFIG:Release>:_FORTIFY_SOURCE=2>)
  target_link_options(adit_flags INTERFACE -Wl,-z,relro,-z,now)
endif()

# adit_folder(NAME deps...): the folder's *.cc (without *_test.cc and main.cc) become the library adit_NAME, linked with
# `deps`; its *_test.cc become the executable NAME_test, registered test by test.
function(adit_folder name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|/main)\\.cc$")
  if(sources)
    add_library(adit_${name} STATIC ${sources})
    target_link_libraries(adit_${name} PUBLIC adit_flags ${ARGN})
  else()
    add_library(adit_${name} INTERFACE)
    target_link_libraries(adit_${name} INTERFACE adit_flags ${ARGN})
  endif()
  if(ADIT_TESTS AND tests)
    adit_test(${name}_test ${tests} LINK adit_${name})
  endif()
endfunction()

# adit_test(NAME sources... LINK libraries...): a GoogleTest executable whose tests ctest runs one by one.
function(adit_test name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${arg_LINK} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ADIT_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
endfunction()
