#pragma once
// Search time against the number of layers, devices and knobs.
#include <filesystem>
#include <string>
#include <vector>

namespace gantry::cli::planner {

/// One search of GPT blocks of 22b's width on L4.
struct GrowthPoint {
  std::string axis;   ///< "layers", "devices", "knobs"
  std::string space;  ///< "mist", "full", or a step of the ablation
  double x = 0;
  double cpu_s = 0;
  double iteration_s = 0;  ///< infinite: nothing fits
};

/// Layers 24 to 192 on 32 devices, batch 512; devices 8 to 1,024 with 48 layers, 4 sequences a device and 512 at least;
/// the steps of the ablation with 48 layers on 32 devices.
std::vector<GrowthPoint> measure_growth();

/// Three panels side by side as one SVG document.
std::string growth_svg(const std::vector<GrowthPoint>& points);
std::string growth_csv(const std::vector<GrowthPoint>& points);
/// The plot, and its numbers in a file of the same name that ends in .csv.
void write_growth(const std::vector<GrowthPoint>& points, const std::filesystem::path& svg);

}  // namespace gantry::cli::planner
