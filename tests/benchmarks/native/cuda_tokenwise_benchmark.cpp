// Times the token-wise kernels on a GPU without Java, at FLUX's widths and at those of a batch that is trained on:
// medians over CUDA events beside the time that an H200's memory would take, and the memory's rate beside that of a
// copy from device to device in the same run. A graph repeats each call, so that what the host does before a kernel is
// not counted: the shortest take no longer than that.
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "scaledit/scaledit.h"

namespace {

constexpr std::int32_t kWidth = 3072;
constexpr std::int32_t kMlpWidth = 4 * kWidth;
constexpr std::int64_t kTokens = 512 + 256 * 256 + 64 * 64;  // text, image and guidance of 4096 x 4096 pixels
constexpr std::int64_t kGuidance = 64 * 64;
constexpr std::int64_t kText = 512;
constexpr std::int64_t kPictures = 1024;  // of a batch, of 48 tokens of text and 256 of the image
constexpr std::int64_t kPictureRows = 48 + 256;
constexpr std::int32_t kBatchWidth = 256;
constexpr double kMemoryRate = 4200;  // GB/s of an H200

constexpr int kRuns = 15;
constexpr int kCalls = 10;  // of a run

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "cuda_tokenwise_benchmark: %s: %s %s\n", what, scaledit_last_error(),
                     cudaGetErrorString(cudaGetLastError()));
        std::exit(1);
    }
}

void* device_memory(std::size_t bytes) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes) == cudaSuccess, "cudaMalloc");
    return memory;
}

// A bfloat16 matrix of normal numbers.
scaledit_matrix normal_matrix(std::int64_t rows, std::int64_t width) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    std::vector<std::uint16_t> block(1 << 20);
    std::ranges::generate(
        block, [&] { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16); });
    const auto count = static_cast<std::size_t>(rows * width);
    auto* const memory = static_cast<std::uint16_t*>(device_memory(2 * count));
    for (std::size_t at = 0; at < count; at += block.size()) {
        const std::size_t part = std::min(block.size(), count - at);
        // A different place to begin for each part, so that they differ.
        std::ranges::rotate(block, block.begin() + 4099);
        require(cudaMemcpy(memory + at, block.data(), part * 2, cudaMemcpyHostToDevice) == cudaSuccess, "cudaMemcpy");
    }
    return {memory, width, SCALEDIT_BFLOAT16};
}

scaledit_matrix matrix(std::int64_t rows, std::int64_t width, std::int32_t dtype) {
    return {device_memory(static_cast<std::size_t>(rows * width * (dtype == SCALEDIT_E4M3 ? 1 : 2))), width, dtype};
}

cudaStream_t stream() {
    static const cudaStream_t own = [] {
        cudaStream_t created = nullptr;
        require(cudaStreamCreate(&created) == cudaSuccess, "cudaStreamCreate");
        return created;
    }();
    return own;
}

// Of one of the kCalls calls that `run` queues.
template <typename Run>
double median_milliseconds(const Run& run) {
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    require(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess, "cudaEventCreate");
    std::vector<float> times;
    for (int i = -3; i < kRuns; ++i) {
        cudaEventRecord(begin, stream());
        run();
        cudaEventRecord(end, stream());
        require(cudaEventSynchronize(end) == cudaSuccess, "the kernel");
        float milliseconds = 0;
        cudaEventElapsedTime(&milliseconds, begin, end);
        if (i >= 0) {
            times.push_back(milliseconds);
        }
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::ranges::sort(times);
    return static_cast<double>(times[times.size() / 2]) / kCalls;
}

template <typename Call>
cudaGraphExec_t graph_of_calls(const Call& call) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    require(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal) == cudaSuccess, "cudaStreamBeginCapture");
    for (int i = 0; i < kCalls; ++i) {
        call();
    }
    require(cudaStreamEndCapture(stream(), &graph) == cudaSuccess, "cudaStreamEndCapture");
    require(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess, "cudaGraphInstantiate");
    cudaGraphDestroy(graph);
    return executable;
}

// Bytes that a call reads and writes for each channel of a row; what belongs to a row or a channel alone is not
// counted.
struct Traffic {
    std::int64_t rows;
    std::int64_t width;
    int bytes;
};

class Report {
public:
    explicit Report(double copy_rate) : copy_rate_(copy_rate) {}

    template <typename Call>
    void line(const std::string& name, const Traffic& traffic, const Call& call) const {
        const cudaGraphExec_t graph = graph_of_calls(call);
        const double milliseconds =
            median_milliseconds([&] { require(cudaGraphLaunch(graph, stream()) == cudaSuccess, "cudaGraphLaunch"); });
        cudaGraphExecDestroy(graph);
        const double gigabytes = static_cast<double>(traffic.rows * traffic.width * traffic.bytes) * 1e-9;
        const double rate = gigabytes / milliseconds * 1e3;
        std::printf("%-48s %6lld x %5lld %8.1f us, floor %7.1f us %7.0f GB/s %5.2f of a copy\n", name.c_str(),
                    static_cast<long long>(traffic.rows), static_cast<long long>(traffic.width), milliseconds * 1e3,
                    gigabytes / kMemoryRate * 1e6, rate, rate / copy_rate_);
    }

private:
    double copy_rate_;  // GB/s
};

// Norms and modulations of rows among which the last are guidance tokens, and gated additions.
void measure_hidden(const Report& report, std::int64_t rows, std::int64_t guidance_rows) {
    const scaledit_matrix hidden = normal_matrix(rows, kWidth);
    const scaledit_matrix update = normal_matrix(rows, kWidth);
    const scaledit_matrix parts = normal_matrix(6, kWidth);
    const auto part = [&](int index) {
        const auto* const first = static_cast<const std::uint16_t*>(parts.data) + 2 * index * kWidth;
        return scaledit_modulation_part{first, guidance_rows > 0 ? first + kWidth : nullptr};
    };
    const scaledit_cuda_add_gated_arguments add_gated = {rows,   guidance_rows, kWidth,  hidden,
                                                         update, part(0),       stream()};
    report.line("add under a gate", {rows, kWidth, 6},
                [&] { require(scaledit_cuda_add_gated(&add_gated) == SCALEDIT_OK, "add_gated"); });

    for (const std::int32_t dtype : {SCALEDIT_BFLOAT16, SCALEDIT_E4M3}) {
        const bool in_fp8 = dtype == SCALEDIT_E4M3;
        scaledit_cuda_modulate_arguments modulate{};
        modulate.rows = rows;
        modulate.guidance_rows = guidance_rows;
        modulate.width = kWidth;
        modulate.stream = stream();
        modulate.hidden = hidden;
        modulate.shift = part(1);
        modulate.scale = part(2);
        modulate.epsilon = 1e-6F;
        modulate.output = matrix(rows, kWidth, dtype);
        modulate.output_scale =
            in_fp8 ? static_cast<float*>(device_memory(static_cast<std::size_t>(rows) * sizeof(float))) : nullptr;
        const std::string to = in_fp8 ? "e4m3" : "bfloat16";
        const auto call = [&] { require(scaledit_cuda_modulate(&modulate) == SCALEDIT_OK, "modulate"); };
        report.line("norm and modulate to " + to, {rows, kWidth, in_fp8 ? 3 : 4}, call);
        modulate.update = update;
        modulate.gate = part(0);
        report.line("add under a gate, norm and modulate to " + to, {rows, kWidth, in_fp8 ? 7 : 8}, call);
        cudaFree(modulate.output.data);
        cudaFree(modulate.output_scale);
    }
    cudaFree(hidden.data);
    cudaFree(update.data);
    cudaFree(parts.data);
}

void measure_mlp(const Report& report) {
    const scaledit_matrix attended = normal_matrix(kTokens, kWidth);
    const scaledit_matrix mlp = normal_matrix(kTokens, kMlpWidth);
    const scaledit_matrix output = matrix(kTokens, kWidth + kMlpWidth, SCALEDIT_E4M3);
    auto* const scales = static_cast<float*>(device_memory(kTokens * sizeof(float)));
    const auto quantize = [&](const std::string& name, std::int32_t width, std::int32_t gelu_width) {
        scaledit_cuda_quantize_arguments arguments{};
        arguments.rows = kTokens;
        arguments.width = width;
        arguments.gelu_width = gelu_width;
        arguments.stream = stream();
        if (width > 0) {
            arguments.input = attended;
        }
        if (gelu_width > 0) {
            arguments.gelu_input = mlp;
        }
        arguments.output = {output.data, width + gelu_width, SCALEDIT_E4M3};
        arguments.output_scale = scales;
        report.line(name, {kTokens, width + gelu_width, 3},
                    [&] { require(scaledit_cuda_quantize(&arguments) == SCALEDIT_OK, "quantize"); });
    };
    quantize("attention's output to e4m3", kWidth, 0);
    quantize("GELU to e4m3", 0, kMlpWidth);
    quantize("attention's output and GELU to e4m3", kWidth, kMlpWidth);
    cudaFree(attended.data);
    cudaFree(mlp.data);
    cudaFree(output.data);
    cudaFree(scales);
}

// What one of two GPUs gives and takes of a picture of 8192 x 8192 pixels, 12 of 24 heads at a time.
void measure_exchange(const Report& report) {
    constexpr std::int64_t kRows = 64 * 64 + 8192;  // of cells on the border, and of guidance
    constexpr std::int32_t kGroupWidth = kWidth / 2;
    const scaledit_matrix projected = normal_matrix(kTokens, 3 * kGroupWidth);
    const auto part = [&](int number) {
        return scaledit_matrix{static_cast<std::uint16_t*>(projected.data) + number * kGroupWidth, projected.row_stride,
                               SCALEDIT_BFLOAT16};
    };
    std::vector<std::int64_t> numbers(kRows);
    for (std::size_t row = 0; row < numbers.size(); ++row) {
        numbers[row] = static_cast<std::int64_t>(row / 64 * 300 + row % 64);  // cells of 64 tokens
    }
    auto* const token = static_cast<std::int64_t*>(device_memory(numbers.size() * sizeof(std::int64_t)));
    require(
        cudaMemcpy(token, numbers.data(), numbers.size() * sizeof(std::int64_t), cudaMemcpyHostToDevice) == cudaSuccess,
        "cudaMemcpy");
    std::size_t row_bytes = 0;
    require(scaledit_cuda_packed_row_bytes(kGroupWidth, &row_bytes) == SCALEDIT_OK, "packed_row_bytes");
    void* const packed = device_memory(kRows * row_bytes);
    const Traffic traffic = {kRows, std::int64_t{4} * kGroupWidth + static_cast<std::int64_t>(row_bytes), 1};
    const scaledit_cuda_pack_rows_arguments pack = {kRows,   kTokens, kGroupWidth, part(1),
                                                    part(2), token,   packed,      stream()};
    report.line("rows for another GPU to INT8 (bytes)", traffic,
                [&] { require(scaledit_cuda_pack_rows(&pack) == SCALEDIT_OK, "pack_rows"); });
    const scaledit_cuda_unpack_rows_arguments unpack = {kRows, kGroupWidth, packed, part(1), part(2), stream()};
    report.line("and back (bytes)", traffic,
                [&] { require(scaledit_cuda_unpack_rows(&unpack) == SCALEDIT_OK, "unpack_rows"); });
    cudaFree(projected.data);
    cudaFree(token);
    cudaFree(packed);
}

// A block of the demo model, forward and back: `parts` are those of gradients of a picture's vectors.
void measure_batch(const Report& report, std::int64_t pictures, std::int64_t picture_rows, std::int32_t parts) {
    constexpr std::int32_t kBatchMlpWidth = 4 * kBatchWidth;
    const std::int64_t rows = pictures * picture_rows;
    const scaledit_matrix hidden = normal_matrix(rows, kBatchWidth);
    const scaledit_matrix update = normal_matrix(rows, kBatchWidth);
    const scaledit_matrix written = matrix(rows, kBatchWidth, SCALEDIT_BFLOAT16);
    const scaledit_matrix vectors = normal_matrix(pictures, 3 * kBatchWidth);
    const auto vector = [&](int index) {
        return scaledit_picture_vectors{static_cast<const std::uint16_t*>(vectors.data) + index * kBatchWidth,
                                        vectors.row_stride};
    };
    auto* const sums = static_cast<float*>(
        device_memory(static_cast<std::size_t>(2 * parts * pictures * kBatchWidth) * sizeof(float)));
    const auto gradient = [&](int index) {
        return scaledit_picture_gradients{sums + index * kBatchWidth, 2 * kBatchWidth};
    };
    const auto line = [&](const std::string& name, std::int32_t width, int bytes, auto* function,
                          const auto& arguments) {
        report.line(name, {rows, width, bytes}, [&] { require(function(&arguments) == SCALEDIT_OK, name.c_str()); });
    };

    line("batch: norm and modulate", kBatchWidth, 4, scaledit_cuda_batch_modulate,
         scaledit_cuda_batch_modulate_arguments{rows, picture_rows, kBatchWidth, hidden, vector(0), vector(1), 1e-6F,
                                                written, stream()});
    for (const std::int32_t adds : {0, 1}) {
        scaledit_cuda_batch_modulate_gradient_arguments back{};
        back.rows = rows;
        back.picture_rows = picture_rows;
        back.width = kBatchWidth;
        back.parts = parts;
        back.adds = adds;
        back.epsilon = 1e-6F;
        back.hidden = hidden;
        back.scale = vector(1);
        back.output_gradient = update;
        back.hidden_gradient = written;
        back.shift_gradient = gradient(0);
        back.scale_gradient = gradient(1);
        back.stream = stream();
        line(adds != 0 ? "batch: and back, added" : "batch: and back", kBatchWidth, adds != 0 ? 8 : 6,
             scaledit_cuda_batch_modulate_gradient, back);
    }
    line("batch: add under a gate", kBatchWidth, 6, scaledit_cuda_batch_add_gated,
         scaledit_cuda_batch_add_gated_arguments{rows, picture_rows, kBatchWidth, hidden, update, vector(2), written,
                                                 stream()});
    line("batch: and back", kBatchWidth, 6, scaledit_cuda_batch_add_gated_gradient,
         scaledit_cuda_batch_add_gated_gradient_arguments{rows, picture_rows, kBatchWidth, parts, update, vector(2),
                                                          hidden, written, gradient(0), stream()});

    constexpr std::int32_t kHeadDim = 128;
    const scaledit_matrix projected = normal_matrix(rows, 3 * kBatchWidth);
    const scaledit_matrix norm = normal_matrix(1, kHeadDim);
    auto* const rotation =
        static_cast<float*>(device_memory(static_cast<std::size_t>(picture_rows * kHeadDim) * sizeof(float)));
    require(cudaMemset(rotation, 0, static_cast<std::size_t>(picture_rows * kHeadDim) * sizeof(float)) == cudaSuccess,
            "cudaMemset");
    constexpr std::int32_t kHeads = kBatchWidth / kHeadDim;
    constexpr std::int32_t kNormParts = 1056;
    line("batch: norm and rotate", kBatchWidth, 4, scaledit_cuda_batch_norm_and_rotate,
         scaledit_cuda_batch_norm_and_rotate_arguments{rows, picture_rows, picture_rows, 0, kHeads, kHeadDim, 1e-6F,
                                                       norm.data, rotation, projected, written, stream()});
    auto* const norm_sums = static_cast<float*>(device_memory(kNormParts * kHeadDim * sizeof(float)));
    line("batch: and back", kBatchWidth, 6, scaledit_cuda_batch_norm_and_rotate_gradient,
         scaledit_cuda_batch_norm_and_rotate_gradient_arguments{rows, picture_rows, picture_rows, 0, kHeads, kHeadDim,
                                                                kNormParts, 1e-6F, norm.data, rotation, projected,
                                                                update, written, norm_sums, stream()});

    const scaledit_matrix mlp = normal_matrix(rows, kBatchMlpWidth);
    const scaledit_matrix mlp_gradient = normal_matrix(rows, kBatchMlpWidth);
    const scaledit_matrix joined = matrix(rows, kBatchWidth + kBatchMlpWidth, SCALEDIT_BFLOAT16);
    line("batch: GELU", kBatchMlpWidth, 4, scaledit_cuda_join_gelu,
         scaledit_cuda_join_gelu_arguments{
             rows, 0, kBatchMlpWidth, {nullptr, 0, SCALEDIT_BFLOAT16}, mlp, joined, stream()});
    line("batch: attention's output and GELU", kBatchWidth + kBatchMlpWidth, 4, scaledit_cuda_join_gelu,
         scaledit_cuda_join_gelu_arguments{rows, kBatchWidth, kBatchMlpWidth, hidden, mlp, joined, stream()});
    line("batch: GELU back", kBatchMlpWidth, 6, scaledit_cuda_gelu_gradient,
         scaledit_cuda_gelu_gradient_arguments{
             rows, kBatchMlpWidth, mlp, mlp_gradient, {joined.data, kBatchMlpWidth, SCALEDIT_BFLOAT16}, stream()});
    for (void* memory :
         {hidden.data, update.data, written.data, vectors.data, static_cast<void*>(sums), projected.data, norm.data,
          static_cast<void*>(rotation), static_cast<void*>(norm_sums), mlp.data, mlp_gradient.data, joined.data}) {
        cudaFree(memory);
    }
}

// GB/s of a copy from device to device, its reads and its writes.
double copy_rate() {
    constexpr std::size_t kBytes = kTokens * kMlpWidth * 2;
    void* const from = device_memory(kBytes);
    void* const to = device_memory(kBytes);
    require(cudaMemset(from, 1, kBytes) == cudaSuccess, "cudaMemset");
    const double milliseconds = median_milliseconds([&] {
        for (int i = 0; i < kCalls; ++i) {
            require(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream()) == cudaSuccess, "copy");
        }
    });
    cudaFree(from);
    cudaFree(to);
    return 2 * static_cast<double>(kBytes) / milliseconds * 1e-6;
}

}  // namespace

int main() {
    require(scaledit_cuda_supported(0) == SCALEDIT_OK, "GPU");
    const double rate = copy_rate();
    std::printf("a copy from device to device: %.0f GB/s\n", rate);
    const Report report(rate);
    measure_hidden(report, kTokens, kGuidance);
    measure_hidden(report, kText, 0);
    measure_mlp(report);
    measure_exchange(report);
    measure_batch(report, kPictures, kPictureRows, 4);
    measure_batch(report, 32, 48 + 4096, 128);
    return 0;
}
