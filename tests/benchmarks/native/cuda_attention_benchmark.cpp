// Times attention on a GPU without Java: medians over CUDA events, 24 heads x 128, bfloat16, normal inputs.
//
//   cuda_attention_benchmark [sm80] [sm89] [sm90]   these families of kernels; without arguments all of them
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

#include "scaledit/scaledit.h"

namespace {

constexpr int kHeads = 24;
constexpr int kHeadDim = 128;
constexpr int kRuns = 15;

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "cuda_attention_benchmark: %s: %s %s\n", what, scaledit_last_error(),
                     cudaGetErrorString(cudaGetLastError()));
        std::exit(1);
    }
}

struct Family {
    const char* name;
    std::int32_t kernels;
    bool bfloat16;  // has kernels of its own for it
};
constexpr Family kFamilies[] = {{"sm80", SCALEDIT_CUDA_KERNELS_SM80, true},
                                {"sm89", SCALEDIT_CUDA_KERNELS_SM89, false},
                                {"sm90", SCALEDIT_CUDA_KERNELS_SM90, true}};

struct Work {
    const char* name;
    std::int64_t width;  // tokens
    std::int64_t height;
    std::int64_t text;
    std::int32_t ratio;
    std::int32_t reach;
    std::int32_t margin;
};

void* device_normal(std::size_t count) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    std::vector<std::uint16_t> block(1 << 20);
    std::ranges::generate(
        block, [&] { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16); });
    void* memory = nullptr;
    require(cudaMalloc(&memory, count * 2) == cudaSuccess, "cudaMalloc");
    for (std::size_t at = 0; at < count; at += block.size()) {
        const std::size_t part = std::min(block.size(), count - at);
        // A different place to begin for each part, so that they differ.
        std::ranges::rotate(block, block.begin() + 4099);
        require(cudaMemcpy(static_cast<std::uint16_t*>(memory) + at, block.data(), part * 2, cudaMemcpyHostToDevice) ==
                    cudaSuccess,
                "cudaMemcpy");
    }
    return memory;
}

double median_milliseconds(const scaledit_cuda_attention_arguments& arguments) {
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    require(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess, "cudaEventCreate");
    std::vector<float> times;
    for (int run = -3; run < kRuns; ++run) {
        cudaEventRecord(begin);
        require(scaledit_cuda_attention(&arguments) == SCALEDIT_OK, "attention");
        cudaEventRecord(end);
        require(cudaEventSynchronize(end) == cudaSuccess, "the kernel");
        float milliseconds = 0;
        cudaEventElapsedTime(&milliseconds, begin, end);
        if (run >= 0) {
            times.push_back(milliseconds);
        }
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::ranges::sort(times);
    return static_cast<double>(times[times.size() / 2]);
}

void measure(const Work& work, const Family& family, std::int32_t arithmetic) {
    scaledit_geometry_options options{};
    require(scaledit_geometry_defaults(&options) == SCALEDIT_OK, "defaults");
    options.text_tokens = work.text;
    options.image_width = work.width;
    options.image_height = work.height;
    options.ratio = work.ratio;
    options.reach = work.reach;
    options.guidance_margin = work.margin;
    scaledit_geometry* geometry = nullptr;
    require(scaledit_geometry_create(&options, &geometry) == SCALEDIT_OK, "geometry");
    scaledit_geometry_info info{};
    require(scaledit_geometry_describe(geometry, &info) == SCALEDIT_OK, "describe");

    const auto count = static_cast<std::size_t>(info.tokens * kHeads * kHeadDim);
    void* qkv = device_normal(3 * count);
    void* out = nullptr;
    void* blob = nullptr;
    std::size_t bytes = 0;
    require(scaledit_cuda_geometry_bytes(geometry, &bytes) == SCALEDIT_OK, "geometry bytes");
    require(cudaMalloc(&out, count * 2) == cudaSuccess && cudaMalloc(&blob, bytes) == cudaSuccess, "cudaMalloc");
    require(scaledit_cuda_geometry_upload(geometry, blob, bytes, nullptr) == SCALEDIT_OK, "upload");

    constexpr std::int64_t row = kHeads * kHeadDim;
    const auto part = [&](int index) {
        return scaledit_tensor{static_cast<std::uint16_t*>(qkv) + index * row, 3 * row, kHeadDim, SCALEDIT_BFLOAT16};
    };
    scaledit_cuda_attention_arguments arguments{};
    arguments.geometry = geometry;
    arguments.device_geometry = blob;
    arguments.heads = kHeads;
    arguments.head_dim = kHeadDim;
    arguments.scale = 1 / std::sqrt(128.0F);
    arguments.arithmetic = arithmetic;
    arguments.kernels = family.kernels;
    arguments.query = part(0);
    arguments.key = part(1);
    arguments.value = part(2);
    arguments.output = {out, row, kHeadDim, SCALEDIT_BFLOAT16};
    void* workspace = nullptr;
    void* weights = nullptr;
    void* rotation = nullptr;
    if (arithmetic == SCALEDIT_ARITHMETIC_INT8) {
        require(scaledit_cuda_attention_workspace(&arguments, &bytes) == SCALEDIT_OK, "workspace");
        weights = device_normal(kHeadDim);
        const auto angles = static_cast<std::size_t>(info.tokens * kHeadDim);
        require(cudaMalloc(&workspace, bytes) == cudaSuccess && cudaMalloc(&rotation, angles * 4) == cudaSuccess,
                "cudaMalloc");
        std::vector<float> half(angles, std::sqrt(0.5F));
        require(cudaMemcpy(rotation, half.data(), angles * 4, cudaMemcpyHostToDevice) == cudaSuccess, "cudaMemcpy");
        arguments.workspace = workspace;
        arguments.workspace_bytes = bytes;
        arguments.query_norm = weights;
        arguments.key_norm = weights;
        arguments.norm_epsilon = 1e-6F;
        arguments.rotation = static_cast<const float*>(rotation);
    }
    const char* const name = arithmetic == SCALEDIT_ARITHMETIC_INT8 ? "INT8" : "bfloat16";
    if (scaledit_cuda_attention(&arguments) == SCALEDIT_UNSUPPORTED) {
        std::printf("%-4s %-8s %-23s %s\n", family.name, name, work.name, scaledit_last_error());
    } else {
        const double median = median_milliseconds(arguments);
        const double operations = 4.0 * kHeadDim * kHeads * static_cast<double>(info.pairs);
        std::printf("%-4s %-8s %-23s %8lld tokens %14lld pairs %9.3f ms  %7.1f T op/s\n", family.name, name, work.name,
                    static_cast<long long>(info.tokens), static_cast<long long>(info.pairs), median,
                    operations / median * 1e-9);
    }
    cudaFree(qkv);
    cudaFree(out);
    cudaFree(blob);
    cudaFree(workspace);
    cudaFree(weights);
    cudaFree(rotation);
    scaledit_geometry_destroy(geometry);
}

}  // namespace

int main(int argc, char** argv) {
    require(scaledit_cuda_supported(0) == SCALEDIT_OK, "GPU");
    std::vector<Family> families;
    for (int i = 1; i < argc; ++i) {
        const auto* found = std::ranges::find(kFamilies, std::string_view(argv[i]), &Family::name);
        if (found == std::end(kFamilies)) {
            std::fprintf(stderr, "cuda_attention_benchmark: no kernels are called %s, expected sm80, sm89 or sm90\n",
                         argv[i]);
            return 2;
        }
        families.push_back(*found);
    }
    if (families.empty()) {
        families.assign(std::begin(kFamilies), std::end(kFamilies));
    }
    for (const Work& work :
         {Work{"4096 x 4096", 256, 256, 512, 4, 1, 3}, Work{"4096 x 4096, own window", 256, 256, 512, 4, 0, 0},
          Work{"2048 x 2048", 128, 128, 512, 4, 1, 3}, Work{"8192 x 8192", 512, 512, 512, 4, 1, 3},
          Work{"3008 x 5008", 188, 313, 512, 4, 1, 3}, Work{"dense", 274, 256, 0, 0, 4096, 0}}) {
        for (const Family& family : families) {
            measure(work, family, SCALEDIT_ARITHMETIC_INT8);
            if (family.bfloat16) {
                measure(work, family, SCALEDIT_ARITHMETIC_BFLOAT16);
            }
        }
    }
    return 0;
}
