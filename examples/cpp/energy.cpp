// Energy and forces by the AOTInductor package of an exported model, without Python.
//
//     energy PACKAGE ATOMS 3 < positions
//     energy PACKAGE DIM     < coordinates
//
// PACKAGE is the file energy-MACHINE.pt2 that `sciflow export` wrote; the numbers behind it are the
// shape of one sample, as in its metadata.json. Samples are read as numbers, one after the other;
// of each a line is printed, its energy and then its forces, in the units of the metadata.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s PACKAGE SHAPE... < numbers\n", argv[0]);
    return 2;
  }
  std::vector<int64_t> shape{1};
  for (int i = 2; i < argc; ++i) shape.push_back(std::atoll(argv[i]));
  int64_t size = 1;
  for (int64_t n : shape) size *= n;
  if (size < 1) {
    std::fprintf(stderr, "SHAPE must be positive numbers\n");
    return 2;
  }
  try {
    torch::inductor::AOTIModelPackageLoader model(argv[1]);
    std::vector<double> numbers(size);
    while (std::cin >> numbers[0]) {
      for (int64_t i = 1; i < size; ++i) {
        if (!(std::cin >> numbers[i])) {
          std::fprintf(stderr, "the last sample has fewer than %lld numbers\n", (long long)size);
          return 2;
        }
      }
      std::vector<at::Tensor> inputs{at::from_blob(numbers.data(), shape, at::kDouble).clone()};
      std::vector<at::Tensor> outputs = model.run(inputs);
      std::printf("%.15g", outputs[0].item<double>());
      at::Tensor forces = outputs[1].to(at::kDouble).contiguous();
      for (int64_t i = 0; i < size; ++i) std::printf(" %.15g", forces.data_ptr<double>()[i]);
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
