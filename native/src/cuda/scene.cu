#include <cuda_runtime.h>
#include <math.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "cuda/device.h"
#include "cuda/scene.h"
#include "error.h"
#include "scene/picture.h"

namespace scaledit::cuda {
namespace {

using namespace scene;

#define SCALEDIT_SCENE __device__ __forceinline__
#include "scene/painter.inl"

// A thread for each pixel; a block is as wide as a warp, so that a row of pixels is written together.
constexpr int kBlockColumns = 32;
constexpr int kBlockRows = 8;
constexpr int kBlurThreads = 128;

// A block for each row of the map with its room, and of items one after the other. Those of items that have no shadow,
// or a smaller one, end at once.
__global__ void __launch_bounds__(kBlurThreads) blur_columns(const __grid_constant__ Picture picture) {
    const Shadow& shadow = picture.item[blockIdx.y].shadow;
    const int row = static_cast<int>(blockIdx.x);
    if (row >= shadow.side) {
        return;
    }
    for (int column = static_cast<int>(threadIdx.x); column < kShadowCanvas; column += kBlurThreads) {
        blur_down<1>(shadow, row, column);
    }
}

__global__ void __launch_bounds__(kBlurThreads) blur_rows(const __grid_constant__ Picture picture) {
    const Shadow& shadow = picture.item[blockIdx.y].shadow;
    const int row = static_cast<int>(blockIdx.x);
    if (row >= shadow.side) {
        return;
    }
    for (int column = static_cast<int>(threadIdx.x); column < shadow.side; column += kBlurThreads) {
        blur_across<1>(shadow, row, column);
    }
}

__global__ void __launch_bounds__(kBlockColumns* kBlockRows) paint_pixels(const __grid_constant__ Picture picture) {
    const scaledit_rectangle& part = picture.part;
    const int column = static_cast<int>(blockIdx.x) * kBlockColumns + static_cast<int>(threadIdx.x);
    const int row = static_cast<int>(blockIdx.y) * kBlockRows + static_cast<int>(threadIdx.y);
    if (column >= part.columns || row >= part.rows) {
        return;
    }
    Lanes<float, 1> rgb[3];
    paint<1>(picture, part.first_row + row, part.first_column + column, rgb);
    store<1>(picture, part.first_row + row, part.first_column + column, 1, rgb);
}

unsigned blocks(int count, int block) { return static_cast<unsigned>((count + block - 1) / block); }

// The GPU whose memory all of it is.
int device_of(const scaledit_cuda_scene_arguments& a) {
    const NamedMemory output{a.output, "output"};
    const bool works = scene::workspace_bytes(a.scene) > 0;
    const int device = common_device(output, {{works ? a.workspace : nullptr, "workspace"}});
    for (int i = 0; i < a.scene.items; ++i) {
        const scaledit_scene_item& item = a.scene.item[i];
        const std::string name = "scene.item[" + to_text(i) + "]";
        const std::string sprite = name + ".sprite.argb";
        const std::string shadow = name + ".shadow.argb";
        common_device(output, {{scene::is_empty(item.seen) ? nullptr : item.sprite.argb, sprite.c_str()},
                               {scene::is_empty(item.shaded) ? nullptr : item.shadow.argb, shadow.c_str()}});
    }
    return device;
}

}  // namespace

void run(const scaledit_cuda_scene_arguments& a) {
    const CurrentDevice current(device_of(a));
    const auto stream = static_cast<cudaStream_t>(a.stream);
    const Picture picture = scene::picture(a.scene, a.pixels, a.output, a.workspace);
    int side = 0;  // of the largest shadow
    for (int i = 0; i < picture.items; ++i) {
        side = std::max(side, picture.item[i].shadow.side);
    }
    if (side > 0) {
        const dim3 rows(static_cast<unsigned>(side), static_cast<unsigned>(picture.items));
        blur_columns<<<rows, kBlurThreads, 0, stream>>>(picture);
        check(cudaGetLastError(), "the kernel that blurs shadows along columns");
        blur_rows<<<rows, kBlurThreads, 0, stream>>>(picture);
        check(cudaGetLastError(), "the kernel that blurs shadows along rows");
    }
    const dim3 pixels(blocks(picture.part.columns, kBlockColumns), blocks(picture.part.rows, kBlockRows));
    paint_pixels<<<pixels, dim3(kBlockColumns, kBlockRows), 0, stream>>>(picture);
    check(cudaGetLastError(), "the kernel that paints scenes");
}

}  // namespace scaledit::cuda
