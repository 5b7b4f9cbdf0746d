# Script: writes one ctest test for each suite of a GoogleTest program, for gantry_test(... BY_SUITE). Starting a program
# with libtorch takes 0.4 s, which hundreds of small tests would each pay.
#   cmake -DPROGRAM=... -DPREFIX=kernels. -DPROCESSORS=2 -DOUTPUT=file -P GtestSuites.cmake
execute_process(COMMAND ${PROGRAM} --gtest_list_tests OUTPUT_VARIABLE listing RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${PROGRAM} --gtest_list_tests failed: ${failed}")
endif()
string(REGEX MATCHALL "(^|\n)[^ \n][^ \n]*\\.(  # [^\n]*)?\n" suites "${listing}")
set(tests "")
foreach(suite ${suites})
  string(REGEX REPLACE "^\n?([^ \n]*)\\..*" "\\1" suite "${suite}")
  string(APPEND tests "add_test([==[${PREFIX}${suite}]==] [==[${PROGRAM}]==] [==[--gtest_filter=${suite}.*]==])\n"
    "set_tests_properties([==[${PREFIX}${suite}]==] PROPERTIES TIMEOUT 600 PROCESSORS ${PROCESSORS})\n")
endforeach()
file(WRITE ${OUTPUT} "${tests}")
