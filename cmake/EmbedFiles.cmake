# gantry_embed_files(<target> NAMESPACE <a::b> FILES <file>...)
#   Compiles text files into <target>, one `extern const std::string_view k<Name>;` in the namespace for each: name.ext
#   becomes kNameExt (report.css: kReportCss). The declarations are written by hand in a header of the target. A file
#   that changes is embedded again by the next build.
#
# Run as a script (cmake -DOUTPUT=... -DNAMESPACE=... -DFILES=a,b -P EmbedFiles.cmake) it writes the source file.

# GCC takes literals of any length; the delimiter is one that no page contains, which the script checks.
set(GANTRY_EMBED_DELIMITER "gantry_embed")

function(gantry_embed_identifier file result)
  get_filename_component(name ${file} NAME)
  string(REGEX REPLACE "[^A-Za-z0-9]" ";" parts "${name}")
  set(identifier "k")
  foreach(part ${parts})
    string(SUBSTRING ${part} 0 1 first)
    string(SUBSTRING ${part} 1 -1 rest)
    string(TOUPPER ${first} first)
    string(APPEND identifier ${first}${rest})
  endforeach()
  set(${result} ${identifier} PARENT_SCOPE)
endfunction()

function(gantry_embed_write output namespace)
  set(source "// Written by cmake/EmbedFiles.cmake; do not edit.\n#include <string_view>\n\nnamespace ${namespace} {\n")
  foreach(file ${ARGN})
    file(READ ${file} content)
    string(FIND "${content}" ")${GANTRY_EMBED_DELIMITER}\"" clash)
    if(NOT clash EQUAL -1)
      message(FATAL_ERROR "${file}: contains the literal's end )${GANTRY_EMBED_DELIMITER}\"; change it")
    endif()
    gantry_embed_identifier(${file} identifier)
    string(APPEND source "extern const std::string_view ${identifier};\n"
      "const std::string_view ${identifier} = R\"${GANTRY_EMBED_DELIMITER}(${content})${GANTRY_EMBED_DELIMITER}\";\n")
  endforeach()
  file(WRITE ${output} "${source}}  // namespace ${namespace}\n")
endfunction()

function(gantry_embed_files target)
  cmake_parse_arguments(ARG "" "NAMESPACE" "FILES" ${ARGN})
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${target}_embedded.cpp)
  string(REPLACE ";" "," files "${ARG_FILES}")
  set(script ${PROJECT_SOURCE_DIR}/cmake/EmbedFiles.cmake)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${output} -DNAMESPACE=${ARG_NAMESPACE} -DFILES=${files} -P ${script}
    DEPENDS ${ARG_FILES} ${script}
    COMMENT "Embedding the files of ${target}"
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  string(REPLACE "," ";" files "${FILES}")
  gantry_embed_write(${OUTPUT} ${NAMESPACE} ${files})
endif()
