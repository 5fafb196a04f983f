// Times the core's attention: attention_benchmark [WIDTH HEIGHT [HEADS [HEAD_DIM [TEXT_TOKENS [SET ARITHMETIC]]]]],
// sizes in tokens. One line for each instruction set of this processor (or the one named), arithmetic and number of
// threads.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "scaledit/scaledit.h"

namespace {

constexpr int kRepetitions = 7;

void check(scaledit_status status) {
    if (status != SCALEDIT_OK) {
        std::fprintf(stderr, "%s\n", scaledit_last_error());
        std::exit(1);
    }
}

struct Problem {
    scaledit_geometry* geometry = nullptr;
    scaledit_geometry_info info{};
    std::int32_t heads;
    std::int32_t head_dim;
    std::vector<float> query, key, value, output;

    Problem(std::int64_t width, std::int64_t height, std::int32_t heads_, std::int32_t head_dim_, std::int64_t text)
        : heads(heads_), head_dim(head_dim_) {
        scaledit_geometry_options options;
        scaledit_geometry_defaults(&options);
        options.image_width = width;
        options.image_height = height;
        options.text_tokens = text;
        check(scaledit_geometry_create(&options, &geometry));
        check(scaledit_geometry_describe(geometry, &info));
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        for (auto* tensor : {&query, &key, &value, &output}) {
            tensor->resize(static_cast<std::size_t>(info.tokens * heads * head_dim));
            std::ranges::generate(*tensor, [&] { return normal(random); });
        }
    }
    Problem(const Problem&) = delete;
    Problem& operator=(const Problem&) = delete;
    ~Problem() { scaledit_geometry_destroy(geometry); }

    scaledit_tensor tensor(std::vector<float>& of) const {
        return {of.data(), std::int64_t{heads} * head_dim, head_dim, SCALEDIT_FLOAT32};
    }
};

struct Times {
    double milliseconds;      // on the clock, median
    double cpu_milliseconds;  // of all threads, least: what the work costs on a machine that others use too
};

Times measure(Problem& problem, scaledit_arithmetic arithmetic, scaledit_instruction_set set, int threads) {
    scaledit_attention_arguments arguments{};
    arguments.geometry = problem.geometry;
    arguments.heads = problem.heads;
    arguments.head_dim = problem.head_dim;
    arguments.scale = 1.0F / std::sqrt(static_cast<float>(problem.head_dim));
    arguments.arithmetic = arithmetic;
    arguments.instruction_set = set;
    arguments.threads = threads;
    arguments.query = problem.tensor(problem.query);
    arguments.key = problem.tensor(problem.key);
    arguments.value = problem.tensor(problem.value);
    arguments.output = problem.tensor(problem.output);
    check(scaledit_attention_workspace(&arguments, &arguments.workspace_bytes));
    const std::size_t whole = (arguments.workspace_bytes + 63) / 64 * 64;
    const std::unique_ptr<void, void (*)(void*)> workspace(std::aligned_alloc(64, whole), std::free);
    arguments.workspace = workspace.get();

    std::vector<double> times;
    std::vector<double> cpu_times;
    for (int i = 0; i < kRepetitions + 1; ++i) {  // the first one warms up
        const auto start = std::chrono::steady_clock::now();
        const std::clock_t cpu_start = std::clock();
        check(scaledit_attention(&arguments));
        const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
        if (i > 0) {
            times.push_back(passed.count());
            cpu_times.push_back(1e3 * static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC);
        }
    }
    std::ranges::sort(times);
    return {times[times.size() / 2], std::ranges::min(cpu_times)};
}

std::int64_t argument(int argc, char** argv, int index, std::int64_t otherwise) {
    return index < argc ? std::atoll(argv[index]) : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
    Problem problem(argument(argc, argv, 1, 64), argument(argc, argv, 2, 64),
                    static_cast<std::int32_t>(argument(argc, argv, 3, 8)),
                    static_cast<std::int32_t>(argument(argc, argv, 4, 128)), argument(argc, argv, 5, 512));
    const double pairs = static_cast<double>(problem.info.pairs) * problem.heads;
    std::printf("%lld tokens, %d heads x %d, %.2f M pairs\n", static_cast<long long>(problem.info.tokens),
                problem.heads, problem.head_dim, pairs / 1e6);
    std::printf("%-12s %-8s %7s %8s %9s %8s %12s\n", "set", "", "threads", "ms", "GFLOP/s", "CPU ms", "CPU ns/pair");
    const struct {
        scaledit_instruction_set set;
        const char* name;
    } sets[] = {{SCALEDIT_INSTRUCTION_SET_PORTABLE, "portable"},
                {SCALEDIT_INSTRUCTION_SET_AVX2, "avx2"},
                {SCALEDIT_INSTRUCTION_SET_AVX512_VNNI, "avx512_vnni"}};
    const struct {
        scaledit_arithmetic arithmetic;
        const char* name;
    } arithmetics[] = {{SCALEDIT_ARITHMETIC_FLOAT32, "float32"}, {SCALEDIT_ARITHMETIC_INT8, "int8"}};
    const int processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (const auto& [set, name] : sets) {
        if (argc > 6 && std::string_view(argv[6]) != name) {
            continue;
        }
        if (scaledit_instruction_set_supported(set) != SCALEDIT_OK) {
            std::printf("%-12s not supported here\n", name);
            continue;
        }
        for (const auto& [arithmetic, arithmetic_name] : arithmetics) {
            if (argc > 7 && std::string_view(argv[7]) != arithmetic_name) {
                continue;
            }
            for (int threads = 1; threads <= processors; threads = threads < processors ? processors : processors + 1) {
                const auto [milliseconds, cpu_milliseconds] = measure(problem, arithmetic, set, threads);
                std::printf("%-12s %-8s %7d %8.1f %9.1f %8.1f %12.2f\n", name, arithmetic_name, threads, milliseconds,
                            4.0 * problem.head_dim * pairs / milliseconds / 1e6, cpu_milliseconds,
                            cpu_milliseconds * 1e6 / pairs);
            }
        }
    }
    return 0;
}
