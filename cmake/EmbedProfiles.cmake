# cmake -DOUTPUT=x.cpp -DFILES=a.json,b.json -P EmbedProfiles.cmake: a source file that defines shipped_profiles() with the
# text of the files.
string(REPLACE "," ";" files "${FILES}")
set(rows "")
foreach(file ${files})
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" text)
  string(APPEND rows "    {\"${name}\", R\"__json__(${text})__json__\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "// Generated from profiles/*.json.
#include \"gantry/cost/shipped_profiles.h\"

namespace gantry::cost {
namespace {

constexpr ShippedProfile kProfiles[] = {
${rows}};

}  // namespace

std::span<const ShippedProfile> shipped_profiles() { return kProfiles; }

}  // namespace gantry::cost
")
