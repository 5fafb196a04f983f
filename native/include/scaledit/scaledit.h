// Scale-DiT's native core: token geometry, window attention, what a GPU does to each token by itself, and the scenes
// that small models learn from.
//
// The C ABI: the only header that Java, C and the tests see. Every call that can fail returns a status; the sentence
// that explains a failure is scaledit_last_error() of the same thread. No exception crosses this boundary, nothing is
// global, and a geometry may be used by any number of threads at once.
//
// The sequence is [text ; image ; guidance], as in the paper (arXiv 2510.16325): T text tokens, N = W*H image tokens,
// n = w*h tokens of the low-resolution guidance image. "Image" is the paper's X, "guidance" its X_lr.
// In memory image and guidance tokens lie in Hilbert order (scaledit_geometry_order), each on its own grid.
#ifndef SCALEDIT_SCALEDIT_H
#define SCALEDIT_SCALEDIT_H

#include <stddef.h>
#include <stdint.h>

#define SCALEDIT_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum scaledit_status {
    SCALEDIT_OK = 0,
    SCALEDIT_INVALID_ARGUMENT = 1,  // the message names the argument, what was given and what was expected
    SCALEDIT_OUT_OF_MEMORY = 2,
    SCALEDIT_UNSUPPORTED = 3,  // valid, but not on this machine or in this build
    SCALEDIT_INTERNAL_ERROR = 4
} scaledit_status;

// "1.2.3".
SCALEDIT_API const char* scaledit_version(void);

// The sentence that explains the last call of this thread that failed; empty if none has. Valid until the next failure
// of this thread.
SCALEDIT_API const char* scaledit_last_error(void);

// ---------------------------------------------------------------------------------------------------------------
// Geometry: who attends to whom, and in which order tokens lie in memory.

typedef enum scaledit_guidance_attention {
    SCALEDIT_GUIDANCE_GLOBAL = 0,  // every guidance token attends to all guidance tokens
    SCALEDIT_GUIDANCE_LOCAL = 1,   // ... to the guidance cells within one cell of its own
    SCALEDIT_GUIDANCE_NONE = 2     // ... to nobody, the text neither: it is a key and a value alone
} scaledit_guidance_attention;

typedef struct scaledit_geometry_options {
    int64_t text_tokens;         // T, 0 .. 65,536
    int64_t image_width;         // W, in tokens (16 pixels each), 1 .. 4096
    int64_t image_height;        // H, likewise
    int32_t ratio;               // rho: 1, 2, 4 or 8; 0 for a sequence without guidance tokens
    int32_t window;              // tokens along a window's side: 16, 32 or 64
    int32_t reach;               // cells around the own one that a token sees, >= 0; as large as the grid: all of them
    int32_t guidance_margin;     // guidance tokens around the guidance region, >= 0
    int32_t guidance_attention;  // a scaledit_guidance_attention
    int32_t guidance_without_text;  // 0: guidance tokens attend to the text too; 1: they do not
} scaledit_geometry_options;

// ratio 4, window 16, reach 1, margin 3, global, guidance with text; sizes are left 0.
SCALEDIT_API scaledit_status scaledit_geometry_defaults(scaledit_geometry_options* options);

typedef struct scaledit_geometry scaledit_geometry;

typedef struct scaledit_geometry_info {
    int64_t text_tokens;
    int64_t image_tokens;     // of a shard: its own
    int64_t guidance_tokens;  // likewise
    int64_t imported_tokens;  // image and guidance tokens of other shards; 0 but for a shard
    int64_t first_image;      // position of the first image token among those of the whole picture; 0 but for a shard
    int64_t first_guidance;   // likewise of the first guidance token
    int64_t guidance_width;   // w = ceil(W / rho)
    int64_t guidance_height;  // h
    int64_t tokens;           // of the whole sequence
    int64_t tiles;
    int64_t ranges;
    int64_t pairs;        // (query, key) pairs that the mask allows, per head
    int64_t query_tiles;  // those that attend to any
} scaledit_geometry_info;

typedef enum scaledit_stream { SCALEDIT_TEXT = 0, SCALEDIT_IMAGE = 1, SCALEDIT_GUIDANCE = 2 } scaledit_stream;

// Consecutive tokens of the sequence that share a mask row: one cell of image or guidance (8x8 tokens, fewer at the
// right and bottom border), or up to 64 text tokens. Tiles are numbered in the order in which they lie in memory and
// cover the sequence without gap.
typedef struct scaledit_tile {
    int64_t first;   // position of its first token in the sequence
    int32_t tokens;  // 1 .. 64 real tokens
    int32_t stream;  // a scaledit_stream
    int32_t row;     // of the cell in its grid of cells; for text the number of the tile
    int32_t column;  // 0 for text
} scaledit_tile;

// Consecutive tiles that a query tile attends to.
typedef struct scaledit_tile_range {
    int32_t first;
    int32_t count;
} scaledit_tile_range;

// Builds a geometry; the caller destroys it. On failure *geometry is null.
SCALEDIT_API scaledit_status scaledit_geometry_create(const scaledit_geometry_options* options,
                                                      scaledit_geometry** geometry);

// Builds the geometry of one shard of a picture, for pictures that several computers or GPUs paint together: shard
// `index` (from 0) of `shards`, at most one for each window. The caller destroys it; `geometry`, which is no shard
// itself, is not kept. On failure *shard is null.
//
// Shards own consecutive windows of the image along the Hilbert curve, and consecutive cells of the guidance image
// along its own, as many as make about the same work: a token counts for the keys that it attends to, for the text
// tokens that attend to it, and for 10,000 pairs that its products with weights take beside. A small guidance image may
// leave shards without guidance tokens. All shards have the whole text. The sequence of a shard is
//
//     [text ; own image tokens ; own guidance tokens ; imported tokens]
//
// where imported tiles are those of other shards that tiles of its own attend to, no more: those of shard 0, then those
// of shard 1, and so on, of each one image before guidance, in the order of the whole picture. They are keys and values
// alone: they attend to nobody. Own image and guidance tokens attend to what they attend to in the whole picture. A
// text token attends to the shard's own image tokens, and in shard 0 to the text as well: over all shards these are its
// keys, each of them once, so that outputs join by their log-sum-exp.
SCALEDIT_API scaledit_status scaledit_geometry_shard(const scaledit_geometry* geometry, int32_t shards, int32_t index,
                                                     scaledit_geometry** shard);

SCALEDIT_API void scaledit_geometry_destroy(scaledit_geometry* geometry);  // null is allowed
SCALEDIT_API scaledit_status scaledit_geometry_describe(const scaledit_geometry* geometry,
                                                        scaledit_geometry_info* info);

// order[p] = index in raster order of the token at position p of the sequence (text first, then image row by row, then
// guidance row by row); of a shard in that of the whole picture. `count` is the length of the array given and must be
// info.tokens.
SCALEDIT_API scaledit_status scaledit_geometry_order(const scaledit_geometry* geometry, int64_t* order, int64_t count);

// tiles[info.tiles].
SCALEDIT_API scaledit_status scaledit_geometry_tiles(const scaledit_geometry* geometry, scaledit_tile* tiles,
                                                     int64_t count);

// Query tile t attends to the tiles in ranges[offsets[t]] ... ranges[offsets[t + 1] - 1]; ranges of a tile ascend and
// do not touch. offsets[info.tiles + 1], ranges[info.ranges].
SCALEDIT_API scaledit_status scaledit_geometry_ranges(const scaledit_geometry* geometry, int64_t* offsets,
                                                      int64_t offset_count, scaledit_tile_range* ranges,
                                                      int64_t range_count);

// Query tiles, the one with most keys first; equal ones in the order of memory. schedule[info.query_tiles].
SCALEDIT_API scaledit_status scaledit_geometry_schedule(const scaledit_geometry* geometry, int32_t* schedule,
                                                        int64_t count);

// ---------------------------------------------------------------------------------------------------------------
// Attention over a geometry's tile lists.

typedef enum scaledit_dtype {
    SCALEDIT_FLOAT32 = 0,
    SCALEDIT_BFLOAT16 = 1,
    SCALEDIT_E4M3 = 2  // FP8 without infinities, up to 448; in a scaledit_matrix only
} scaledit_dtype;

typedef enum scaledit_arithmetic {
    SCALEDIT_ARITHMETIC_FLOAT32 = 0,  // exact to float32 rounding
    // Q and K in INT8, K smoothed by its mean; softmax in float32; on a GPU weights and V in FP8 or FP16
    SCALEDIT_ARITHMETIC_INT8 = 1,
    SCALEDIT_ARITHMETIC_BFLOAT16 = 2  // products of bfloat16 summed in float32; on a GPU only
} scaledit_arithmetic;

typedef enum scaledit_instruction_set {
    SCALEDIT_INSTRUCTION_SET_BEST = 0,  // the best that this processor has
    SCALEDIT_INSTRUCTION_SET_PORTABLE = 1,
    SCALEDIT_INSTRUCTION_SET_AVX2 = 2,
    SCALEDIT_INSTRUCTION_SET_AVX512_VNNI = 3
} scaledit_instruction_set;

// A [tokens, heads, head_dim] tensor in the order of the geometry's sequence. Strides count elements; head_dim is
// contiguous. Strides are at least 1 and keep rows apart: heads of a token side by side, or tokens of a head. Query,
// key, value and output have the same dtype.
typedef struct scaledit_tensor {
    void* data;
    int64_t token_stride;
    int64_t head_stride;
    int32_t dtype;  // a scaledit_dtype
} scaledit_tensor;

typedef struct scaledit_attention_arguments {
    const scaledit_geometry* geometry;
    int32_t heads;            // 1 .. 4096
    int32_t head_dim;         // 64 or 128
    float scale;              // of Q K^T before the softmax, above 0, usually 1 / sqrt(head_dim); up to 2.3e38, and
                              // times log2(e) and any element of Q within float32
    int32_t arithmetic;       // a scaledit_arithmetic
    int32_t instruction_set;  // a scaledit_instruction_set
    int32_t threads;          // 1 .. 1024; 0: one for each processor. The result does not depend on it.
    scaledit_tensor query;    // normed and rotated
    scaledit_tensor key;
    scaledit_tensor value;
    scaledit_tensor output;  // written; may lie between the rows of the others, never on them
    float* log_sum_exp;      // [heads, tokens], ln of the sum of exp(scale * q . k) over the keys; or null
    void* workspace;         // scaledit_attention_workspace() bytes, 64-byte aligned
    size_t workspace_bytes;
} scaledit_attention_arguments;

// Bytes of workspace that scaledit_attention() needs for these arguments; apart from the geometry their pointers are
// not looked at.
SCALEDIT_API scaledit_status scaledit_attention_workspace(const scaledit_attention_arguments* arguments, size_t* bytes);

// output = softmax(scale * query key^T + mask) value, for every token and head. Skips every tile that is not listed.
// Rows of tokens that attend to nobody are not written, neither here nor on a GPU; their queries must be finite.
// A NaN in a query or in a key that it attends to makes NaNs of the row and of its log-sum-exp, as does a score of
// infinity; a key whose score is -infinity weighs nothing, unless all do. In INT8 an infinity is a NaN. What a value
// has of either shows in its channel. No other row changes, but for the mean of the keys in INT8. In INT8 on a CPU what
// is smaller than 1e-30 counts as 0, and values are to stay below 4e34 / the number of keys.
SCALEDIT_API scaledit_status scaledit_attention(const scaledit_attention_arguments* arguments);

typedef struct scaledit_attention_backward_arguments {
    const scaledit_geometry* geometry;
    int32_t heads;            // 1 .. 4096
    int32_t head_dim;         // 64 or 128
    float scale;              // as in the forward pass
    int32_t instruction_set;  // a scaledit_instruction_set
    int32_t threads;          // 1 .. 1024; 0: one for each processor. The result does not depend on it.
    scaledit_tensor query;
    scaledit_tensor key;
    scaledit_tensor value;
    scaledit_tensor output;           // what scaledit_attention() wrote for them
    const float* log_sum_exp;         // likewise, [heads, tokens]
    scaledit_tensor output_gradient;  // of a loss, as are the other gradients; all tensors have the same dtype
    scaledit_tensor query_gradient;   // written; may lie between the rows of the others, never on them
    scaledit_tensor key_gradient;     // likewise
    scaledit_tensor value_gradient;   // likewise
    void* workspace;                  // scaledit_attention_backward_workspace() bytes, 64-byte aligned
    size_t workspace_bytes;
} scaledit_attention_backward_arguments;

// Bytes of workspace that scaledit_attention_backward() needs for these arguments; apart from the geometry their
// pointers are not looked at.
SCALEDIT_API scaledit_status
scaledit_attention_backward_workspace(const scaledit_attention_backward_arguments* arguments, size_t* bytes);

// From the gradient of attention's output to those of query, key and value, computed in float32 over the same tiles.
// The weights are computed once more, from log_sum_exp.
SCALEDIT_API scaledit_status scaledit_attention_backward(const scaledit_attention_backward_arguments* arguments);

// SCALEDIT_OK if this processor and build have the instruction set, SCALEDIT_UNSUPPORTED with a message if not.
SCALEDIT_API scaledit_status scaledit_instruction_set_supported(int32_t instruction_set);

// What SCALEDIT_INSTRUCTION_SET_BEST stands for on this processor.
SCALEDIT_API int32_t scaledit_instruction_set_best(void);

// 1 if this processor multiplies bfloat16 (AVX512_BF16), 0 if not: matrix products in float32 are then the faster ones.
SCALEDIT_API int32_t scaledit_multiplies_bfloat16(void);

// ---------------------------------------------------------------------------------------------------------------
// Attention on an NVIDIA GPU (compute capability 8.0 and later), over the same geometry. Everything is queued on the
// caller's stream, nothing is allocated, and a CUDA graph can capture it, but for the upload of a geometry. Present in
// every build; without CUDA each function answers SCALEDIT_UNSUPPORTED, once it has found nothing wrong with its
// arguments. Those that only count bytes answer as with CUDA; of the workspace for the BEST kernels see below.

// SCALEDIT_OK if this build has kernels that run on the GPU of that number, SCALEDIT_UNSUPPORTED with a message if not.
SCALEDIT_API scaledit_status scaledit_cuda_supported(int32_t device);

// Bytes that a geometry takes in a GPU's memory.
SCALEDIT_API scaledit_status scaledit_cuda_geometry_bytes(const scaledit_geometry* geometry, size_t* bytes);

// Copies a geometry into `bytes` bytes of a GPU's memory (16-byte aligned), once for any number of attention calls.
// `stream` is a cudaStream_t of that GPU, and none that is being captured: the copy is of memory that does not outlive
// the call.
SCALEDIT_API scaledit_status scaledit_cuda_geometry_upload(const scaledit_geometry* geometry, void* device_memory,
                                                           size_t bytes, void* stream);

// Kernels by the instructions that they are made of. A GPU runs all that its compute capability allows.
typedef enum scaledit_cuda_kernels {
    SCALEDIT_CUDA_KERNELS_BEST = 0,  // the best that the GPU runs
    SCALEDIT_CUDA_KERNELS_SM80 = 1,  // mma.sync, compute capability 8.0 and later: INT8 with V in FP16; bfloat16
    SCALEDIT_CUDA_KERNELS_SM89 = 2,  // mma.sync, 8.9 and later: INT8 with V in FP8; bfloat16 as before
    SCALEDIT_CUDA_KERNELS_SM90 = 3   // wgmma, 9.0: INT8 with V in FP8; bfloat16
} scaledit_cuda_kernels;

typedef struct scaledit_cuda_attention_arguments {
    const scaledit_geometry* geometry;
    const void* device_geometry;  // what scaledit_cuda_geometry_upload() wrote for this geometry
    int32_t heads;                // 1 .. 4096
    int32_t head_dim;             // 64 or 128
    float scale;                  // of Q K^T before the softmax, above 0, usually 1 / sqrt(head_dim)
    int32_t arithmetic;           // INT8 or BFLOAT16
    int32_t kernels;              // a scaledit_cuda_kernels; SCALEDIT_UNSUPPORTED where the GPU does not run them
    scaledit_tensor query;        // bfloat16, strides multiples of 8 elements, 16-byte aligned
    scaledit_tensor key;
    scaledit_tensor value;
    scaledit_tensor output;  // written
    float* log_sum_exp;      // [heads, tokens], or null
    // RMSNorm of queries and keys, with INT8 only: bfloat16 weights [head_dim] on the GPU, 16-byte aligned, or all null
    // where queries and keys are normed already. Text tokens may have weights of their own; null: the same.
    const void* query_norm;
    const void* key_norm;
    const void* text_query_norm;
    const void* text_key_norm;
    float norm_epsilon;
    // Rotary embedding after the norm, with INT8 only: cosine and sine [tokens, head_dim / 2, 2] of each pair of
    // neighbouring channels, 16-byte aligned, or null where queries and keys are rotated already.
    const float* rotation;
    void* workspace;  // scaledit_cuda_attention_workspace() bytes of the GPU, 128-byte aligned
    size_t workspace_bytes;
    void* stream;  // a cudaStream_t of the GPU whose memory the tensors are
} scaledit_cuda_attention_arguments;

// Bytes of workspace that scaledit_cuda_attention() needs; apart from the geometry no pointer is looked at. Kernels
// have sizes of their own: where INT8 asks for the BEST, those of the thread's current GPU are meant, and without a GPU
// it is SCALEDIT_UNSUPPORTED.
SCALEDIT_API scaledit_status scaledit_cuda_attention_workspace(const scaledit_cuda_attention_arguments* arguments,
                                                               size_t* bytes);

// output = softmax(scale * query key^T + mask) value in bfloat16, with softmax and sums in float32. The same bits from
// run to run. INT8 holds rows of queries and keys, as they are once they are normed and the mean key is taken away, to
// their last bit where their largest magnitude is 1.2e-10 (127 * 2^-40) or above.
SCALEDIT_API scaledit_status scaledit_cuda_attention(const scaledit_cuda_attention_arguments* arguments);

typedef struct scaledit_cuda_attention_backward_arguments {
    const scaledit_geometry* geometry;
    const void* device_geometry;  // what scaledit_cuda_geometry_upload() wrote for this geometry
    int32_t heads;                // 1 .. 4096
    int32_t head_dim;             // 64 or 128
    float scale;                  // as in the forward pass
    int32_t kernels;              // a scaledit_cuda_kernels
    scaledit_tensor query;        // bfloat16, strides multiples of 8 elements, 16-byte aligned, as are all
    scaledit_tensor key;
    scaledit_tensor value;
    scaledit_tensor output;           // what scaledit_cuda_attention() wrote for them with bfloat16 arithmetic
    const float* log_sum_exp;         // likewise, [heads, tokens]
    scaledit_tensor output_gradient;  // of a loss, as are the other gradients
    scaledit_tensor query_gradient;   // written; may lie between the rows of the others, never on them
    scaledit_tensor key_gradient;     // likewise
    scaledit_tensor value_gradient;   // likewise
    void* workspace;                  // scaledit_cuda_attention_backward_workspace() bytes of the GPU, 128-byte aligned
    size_t workspace_bytes;
    void* stream;  // a cudaStream_t of the GPU whose memory the tensors are
} scaledit_cuda_attention_backward_arguments;

// Bytes of workspace that scaledit_cuda_attention_backward() needs; apart from the geometry no pointer is looked at.
SCALEDIT_API scaledit_status
scaledit_cuda_attention_backward_workspace(const scaledit_cuda_attention_backward_arguments* arguments, size_t* bytes);

// From the gradient of attention's output to those of query, key and value, over the same tiles: products of bfloat16
// summed in float32. The weights are computed once more, from log_sum_exp. The same bits from run to run.
SCALEDIT_API scaledit_status
scaledit_cuda_attention_backward(const scaledit_cuda_attention_backward_arguments* arguments);

// ---------------------------------------------------------------------------------------------------------------
// What a transformer block does to each token by itself, on an NVIDIA GPU (compute capability 8.0 and later): bfloat16
// in memory, float32 in between. Everything is queued on the caller's stream, nothing is allocated, a CUDA graph can
// capture it, and the bits are the same from run to run. Present in every build; without CUDA each function answers
// SCALEDIT_UNSUPPORTED, once it has found nothing wrong with its arguments, but for those that count bytes.
//
// Widths are multiples of 8 channels: up to 8,192, and the two of scaledit_cuda_quantize() together up to 16,384. A
// call with 0 rows does nothing, and looks at no pointer.
//
// A matrix in e4m3 has a scale for each row, for products with scales by row: a row is its codes times its scale. The
// scale is the row's largest magnitude / 448, at least 2^-100, so that a row of zeros has one that can be divided by.
// Codes are rounded to nearest. A NaN or an infinity in a row makes a NaN of every product with that row.

// A [rows, width] matrix; width is contiguous. 16-byte aligned.
typedef struct scaledit_matrix {
    void* data;
    int64_t row_stride;  // elements, at least the width, a multiple of 8
    int32_t dtype;       // a scaledit_dtype
} scaledit_matrix;

// One of shift, scale and gate: bfloat16 [width], 16-byte aligned. Guidance tokens, the last rows of a call, have their
// own, because they are clean at every step.
typedef struct scaledit_modulation_part {
    const void* current;   // of all other rows
    const void* guidance;  // null if and only if there are no guidance rows
} scaledit_modulation_part;

typedef struct scaledit_cuda_add_gated_arguments {
    int64_t rows;
    int64_t guidance_rows;  // the last ones, 0 .. rows
    int32_t width;
    scaledit_matrix hidden;  // [rows, width] bfloat16, read and written
    scaledit_matrix update;  // [rows, width] bfloat16
    scaledit_modulation_part gate;
    void* stream;  // a cudaStream_t of the GPU whose memory the matrices are
} scaledit_cuda_add_gated_arguments;

// hidden += gate * update.
SCALEDIT_API scaledit_status scaledit_cuda_add_gated(const scaledit_cuda_add_gated_arguments* arguments);

typedef struct scaledit_cuda_modulate_arguments {
    int64_t rows;
    int64_t guidance_rows;  // the last ones, 0 .. rows
    int32_t width;
    scaledit_matrix hidden;  // [rows, width] bfloat16, read; with an update also written
    // What is added before the norm, as by scaledit_cuda_add_gated(); its data and the gate are null where nothing is.
    scaledit_matrix update;  // [rows, width] bfloat16
    scaledit_modulation_part gate;
    scaledit_modulation_part shift;
    scaledit_modulation_part scale;
    float epsilon;           // of the norm, above 0
    scaledit_matrix output;  // [rows, width] bfloat16 or e4m3, written
    float* output_scale;     // [rows], written, 16-byte aligned; null for bfloat16
    void* stream;
} scaledit_cuda_modulate_arguments;

// hidden += gate * update where there is one; then output = norm(hidden) * (1 + scale) + shift. The norm is LayerNorm
// without weights: mean 0 and variance 1 over the width of a row.
SCALEDIT_API scaledit_status scaledit_cuda_modulate(const scaledit_cuda_modulate_arguments* arguments);

typedef struct scaledit_cuda_quantize_arguments {
    int64_t rows;  // tokens, or output channels of a weight
    int32_t width;
    int32_t gelu_width;          // one of the two widths may be 0, and the data of its input is null then
    scaledit_matrix input;       // [rows, width] bfloat16
    scaledit_matrix gelu_input;  // [rows, gelu_width] bfloat16
    scaledit_matrix output;      // [rows, width + gelu_width] e4m3, written
    float* output_scale;         // [rows], written, 16-byte aligned
    void* stream;
} scaledit_cuda_quantize_arguments;

// output = [input, GELU(gelu_input)] in e4m3, GELU as approximated by tanh. A single block's product reads both:
// attention's output and the MLP.
SCALEDIT_API scaledit_status scaledit_cuda_quantize(const scaledit_cuda_quantize_arguments* arguments);

typedef struct scaledit_cuda_norm_and_rotate_arguments {
    int64_t rows;                     // tokens
    int64_t text_rows;                // the first ones, 0 .. rows; they may have a norm of their own
    int32_t heads;                    // heads * head_dim are at most 8,192
    int32_t head_dim;                 // 64 or 128
    float epsilon;                    // of the norm, 0 or above
    const void* norm;                 // bfloat16 [head_dim], 16-byte aligned
    const void* text_norm;            // likewise; null: the same
    const float* rotation;            // cosine and sine [rows, head_dim / 2, 2], 16-byte aligned
    scaledit_matrix input;            // [rows, heads * head_dim] bfloat16: a projection's queries, or its keys
    scaledit_matrix output_gradient;  // of a loss, likewise; its data is null where no gradient is asked for
    scaledit_matrix output;           // likewise, written
    void* stream;
} scaledit_cuda_norm_and_rotate_arguments;

// output = the RMSNorm of each head, times the norm's weights, its neighbouring channels rotated: what attention takes.
// With an output gradient: output = the gradient of the input instead.
SCALEDIT_API scaledit_status scaledit_cuda_norm_and_rotate(const scaledit_cuda_norm_and_rotate_arguments* arguments);

// ---------------------------------------------------------------------------------------------------------------
// Keys and values on their way from one NVIDIA GPU to another, in 8 bits; as the functions above in all else. A packed
// row is a token's: INT8 codes of its key, those of its value, and a bfloat16 scale for each 32 channels of the key and
// then of the value. A number is its code times its scale, which is the largest magnitude of the 32 / 127, at least
// 2^-40. Among 32 that have a NaN or an infinity no number stays finite.

// Bytes of a packed row: 17 for 8 channels of key and value.
SCALEDIT_API scaledit_status scaledit_cuda_packed_row_bytes(int32_t width, size_t* bytes);

typedef struct scaledit_cuda_pack_rows_arguments {
    int64_t rows;           // that are packed
    int64_t tokens;         // that there are
    int32_t width;          // heads * head_dim: a multiple of 64, up to 8,192
    scaledit_matrix key;    // [tokens, width] bfloat16
    scaledit_matrix value;  // likewise
    const int64_t* token;   // [rows] numbers of tokens in the GPU's memory, 16-byte aligned
    void* packed;           // [rows, bytes of a packed row], written, 16-byte aligned
    void* stream;           // a cudaStream_t of the GPU whose memory the matrices are
} scaledit_cuda_pack_rows_arguments;

// packed[row] = key[token[row]] and value[token[row]]. NaNs where there is no token of that number.
SCALEDIT_API scaledit_status scaledit_cuda_pack_rows(const scaledit_cuda_pack_rows_arguments* arguments);

typedef struct scaledit_cuda_unpack_rows_arguments {
    int64_t rows;
    int32_t width;          // as above
    const void* packed;     // [rows, bytes of a packed row], 16-byte aligned
    scaledit_matrix key;    // [rows, width] bfloat16, written
    scaledit_matrix value;  // likewise; may lie between the key's rows
    void* stream;
} scaledit_cuda_unpack_rows_arguments;

// key and value = what was packed, rounded to bfloat16.
SCALEDIT_API scaledit_status scaledit_cuda_unpack_rows(const scaledit_cuda_unpack_rows_arguments* arguments);

// ---------------------------------------------------------------------------------------------------------------
// What training does to the tokens of a batch of pictures, forward and back, on an NVIDIA GPU; as the functions above
// in all else. Rows are tokens, those of a picture one after the other, as many for each. A gradient is that of a loss
// by what its name says. Widths that go through GELU, with the one before them, are up to 16,384.

// A vector of each picture, one of shift, scale and gate: bfloat16 [pictures, width], 16-byte aligned.
typedef struct scaledit_picture_vectors {
    const void* data;
    int64_t stride;  // elements from a picture's to the next one's, at least the width, a multiple of 8
} scaledit_picture_vectors;

// The gradient of such vectors, of each picture in as many parts as a call says, which add up to it: float32
// [parts, pictures, width], 16-byte aligned, written. Many parts keep a GPU busy with few pictures.
typedef struct scaledit_picture_gradients {
    float* data;
    int64_t stride;  // elements from a vector to the next one, at least the width, a multiple of 4
} scaledit_picture_gradients;

typedef struct scaledit_cuda_batch_modulate_arguments {
    int64_t rows;          // a multiple of picture_rows
    int64_t picture_rows;  // tokens of a picture, 1 and above
    int32_t width;
    scaledit_matrix hidden;  // [rows, width] bfloat16
    scaledit_picture_vectors shift;
    scaledit_picture_vectors scale;
    float epsilon;           // of the norm, above 0
    scaledit_matrix output;  // [rows, width] bfloat16, written
    void* stream;            // a cudaStream_t of the GPU whose memory the matrices are
} scaledit_cuda_batch_modulate_arguments;

// output = norm(hidden) * (1 + scale) + shift, as scaledit_cuda_modulate() has it.
SCALEDIT_API scaledit_status scaledit_cuda_batch_modulate(const scaledit_cuda_batch_modulate_arguments* arguments);

typedef struct scaledit_cuda_batch_modulate_gradient_arguments {
    int64_t rows;
    int64_t picture_rows;
    int32_t width;
    int32_t parts;  // of the gradients of shift and scale, 1 .. picture_rows
    int32_t adds;   // 1: the gradient of hidden is added to what there is; 0: it is written
    float epsilon;  // as in the forward pass, as are hidden and scale
    scaledit_matrix hidden;
    scaledit_picture_vectors scale;
    scaledit_matrix output_gradient;  // [rows, width] bfloat16
    scaledit_matrix hidden_gradient;  // likewise, written
    scaledit_picture_gradients shift_gradient;
    scaledit_picture_gradients scale_gradient;
    void* stream;
} scaledit_cuda_batch_modulate_gradient_arguments;

SCALEDIT_API scaledit_status
scaledit_cuda_batch_modulate_gradient(const scaledit_cuda_batch_modulate_gradient_arguments* arguments);

typedef struct scaledit_cuda_batch_add_gated_arguments {
    int64_t rows;
    int64_t picture_rows;
    int32_t width;
    scaledit_matrix hidden;  // [rows, width] bfloat16
    scaledit_matrix update;  // likewise
    scaledit_picture_vectors gate;
    scaledit_matrix output;  // likewise, written
    void* stream;
} scaledit_cuda_batch_add_gated_arguments;

// output = hidden + gate * update. The gradient of hidden is that of the output.
SCALEDIT_API scaledit_status scaledit_cuda_batch_add_gated(const scaledit_cuda_batch_add_gated_arguments* arguments);

typedef struct scaledit_cuda_batch_add_gated_gradient_arguments {
    int64_t rows;
    int64_t picture_rows;
    int32_t width;
    int32_t parts;           // of the gradient of the gate, 1 .. picture_rows
    scaledit_matrix update;  // as in the forward pass, as is the gate
    scaledit_picture_vectors gate;
    scaledit_matrix output_gradient;  // [rows, width] bfloat16
    scaledit_matrix update_gradient;  // likewise, written
    scaledit_picture_gradients gate_gradient;
    void* stream;
} scaledit_cuda_batch_add_gated_gradient_arguments;

SCALEDIT_API scaledit_status
scaledit_cuda_batch_add_gated_gradient(const scaledit_cuda_batch_add_gated_gradient_arguments* arguments);

// Queries, or keys, of a stream of tokens on their way to those of the sequence that attends: the stream's tokens of
// each picture are some neighbouring ones of its sequence.
typedef struct scaledit_cuda_batch_norm_and_rotate_arguments {
    int64_t rows;
    int64_t picture_rows;    // of the stream
    int64_t sequence_rows;   // of a picture's sequence
    int64_t first;           // of the sequence's tokens that is the stream's: 0 .. sequence_rows - picture_rows
    int32_t heads;           // heads * head_dim are at most 8,192
    int32_t head_dim;        // 64 or 128
    float epsilon;           // of the norm, 0 or above
    const void* norm;        // bfloat16 [head_dim], 16-byte aligned
    const float* rotation;   // cosine and sine [sequence_rows, head_dim / 2, 2], 16-byte aligned
    scaledit_matrix input;   // [rows, heads * head_dim] bfloat16
    scaledit_matrix output;  // [pictures * sequence_rows, heads * head_dim] bfloat16; the stream's rows are written
    void* stream;
} scaledit_cuda_batch_norm_and_rotate_arguments;

// As scaledit_cuda_norm_and_rotate().
SCALEDIT_API scaledit_status
scaledit_cuda_batch_norm_and_rotate(const scaledit_cuda_batch_norm_and_rotate_arguments* arguments);

typedef struct scaledit_cuda_batch_norm_and_rotate_gradient_arguments {
    int64_t rows;
    int64_t picture_rows;
    int64_t sequence_rows;
    int64_t first;
    int32_t heads;
    int32_t head_dim;
    int32_t parts;  // of the gradient of the norm, 1 .. 65,535
    float epsilon;  // as in the forward pass, as are norm, rotation and input
    const void* norm;
    const float* rotation;
    scaledit_matrix input;
    scaledit_matrix output_gradient;  // [pictures * sequence_rows, heads * head_dim] bfloat16
    scaledit_matrix input_gradient;   // [rows, heads * head_dim] bfloat16, written
    float* norm_gradient;             // [parts, head_dim], written, 16-byte aligned: they add up to it
    void* stream;
} scaledit_cuda_batch_norm_and_rotate_gradient_arguments;

SCALEDIT_API scaledit_status
scaledit_cuda_batch_norm_and_rotate_gradient(const scaledit_cuda_batch_norm_and_rotate_gradient_arguments* arguments);

typedef struct scaledit_cuda_join_gelu_arguments {
    int64_t rows;
    int32_t width;  // 0: GELU alone
    int32_t gelu_width;
    scaledit_matrix input;       // [rows, width] bfloat16; its data is null where width is 0
    scaledit_matrix gelu_input;  // [rows, gelu_width] bfloat16
    scaledit_matrix output;      // [rows, width + gelu_width] bfloat16, written
    void* stream;
} scaledit_cuda_join_gelu_arguments;

// output = input, and behind it GELU, in its tanh form, of the other input. The gradient of input is that of its
// columns.
SCALEDIT_API scaledit_status scaledit_cuda_join_gelu(const scaledit_cuda_join_gelu_arguments* arguments);

typedef struct scaledit_cuda_gelu_gradient_arguments {
    int64_t rows;
    int32_t width;
    scaledit_matrix input;            // [rows, width] bfloat16
    scaledit_matrix output_gradient;  // likewise
    scaledit_matrix input_gradient;   // likewise, written
    void* stream;
} scaledit_cuda_gelu_gradient_arguments;

SCALEDIT_API scaledit_status scaledit_cuda_gelu_gradient(const scaledit_cuda_gelu_gradient_arguments* arguments);

// ---------------------------------------------------------------------------------------------------------------
// What the VAE does beside its convolutions, on an NVIDIA GPU; as the functions above in all else. A picture lies with
// its channels side by side (channels last): a row of the matrix is a position.

typedef struct scaledit_cuda_group_norm_arguments {
    int64_t rows;            // positions of one picture
    int32_t channels;        // a multiple of 8, up to 1,024
    int32_t groups;          // divide the channels
    float epsilon;           // of the norm, above 0
    int32_t silu;            // 1: SiLU after the norm; 0: the norm alone
    const void* weight;      // bfloat16 [channels], 16-byte aligned
    const void* bias;        // likewise
    scaledit_matrix input;   // [rows, channels] bfloat16
    scaledit_matrix output;  // likewise, written
    void* workspace;         // scaledit_cuda_group_norm_workspace() bytes of the GPU, 16-byte aligned
    size_t workspace_bytes;
    void* stream;
} scaledit_cuda_group_norm_arguments;

// Bytes of workspace that scaledit_cuda_group_norm() needs; no pointer is looked at.
SCALEDIT_API scaledit_status scaledit_cuda_group_norm_workspace(const scaledit_cuda_group_norm_arguments* arguments,
                                                                size_t* bytes);

// output = the input with mean 0 and variance 1 over all positions and the channels of a group, times weight, plus
// bias; then x / (1 + exp(-x)) of it if asked for.
SCALEDIT_API scaledit_status scaledit_cuda_group_norm(const scaledit_cuda_group_norm_arguments* arguments);

// ---------------------------------------------------------------------------------------------------------------
// Scenes: pictures to train with, of vector art on backgrounds and in materials that are computed pixel by pixel from a
// seed and a place alone. Whoever composes a scene draws its numbers; equal numbers are the same scene at every size,
// and a rectangle of a picture is what the whole one has there.

typedef enum scaledit_background {
    SCALEDIT_MEADOW = 0,
    SCALEDIT_NIGHT_SKY = 1,
    SCALEDIT_WOODEN_TABLE = 2,
    SCALEDIT_BRICK_WALL = 3,
    SCALEDIT_SANDY_BEACH = 4,
    SCALEDIT_SNOWY_FIELD = 5,
    SCALEDIT_SUNSET_SEA = 6,
    SCALEDIT_PLAIN = 7
} scaledit_background;

typedef enum scaledit_material {
    SCALEDIT_AS_DRAWN = 0,
    SCALEDIT_FELT = 1,
    SCALEDIT_KNITTED = 2,
    SCALEDIT_WOODEN = 3,
    SCALEDIT_STONE = 4,
    SCALEDIT_CLAY = 5
} scaledit_material;

typedef enum scaledit_pixels {
    SCALEDIT_PIXELS_UINT8 = 0,   // [rows, columns, 3]: red, green, blue of each pixel, 0 ... 255
    SCALEDIT_PIXELS_FLOAT32 = 1  // [3, rows, columns]: the same numbers / 127.5 - 1
} scaledit_pixels;

typedef struct scaledit_rectangle {
    int32_t first_row;
    int32_t rows;
    int32_t first_column;
    int32_t columns;
} scaledit_rectangle;

// The picture of an object on a transparent square canvas, or the part of it that a call needs: what a point outside
// the part shows is the part's border.
typedef struct scaledit_sprite {
    const uint32_t* argb;     // [part.rows, part.columns], alpha in the highest bits, premultiplied, 4-byte aligned
    int32_t side;             // of the whole canvas, in pixels, 1 .. 16,384
    scaledit_rectangle part;  // of the canvas, with a row and a column at least
} scaledit_sprite;

// An object. Places and lengths are parts of the picture's side.
typedef struct scaledit_scene_item {
    double x;       // of the canvas' middle, from the left, -16 .. 16
    double y;       // from the top, -16 .. 16
    double canvas;  // its side, 0.001 .. 16
    double cosine;  // of the angle that the canvas is turned by, clockwise; the squares of both add up to 1 (+- 1e-6)
    double sine;
    int32_t mirrored;         // 1: left and right, before it is turned
    int32_t material;         // a scaledit_material
    int32_t seed;             // of the material
    int32_t recoloured;       // 1: what is of about the object's own hue gets another; 0: the next four are not read
    double own_hue;           // degrees, -360 .. 360
    double hue;               // degrees, -360 .. 360
    double saturation;        // 0 .. 1, of what is brightest
    double value;             // a factor, 0 .. 10
    scaledit_rectangle seen;  // of the picture's pixels: elsewhere it is not painted; without rows no sprite is read
    scaledit_sprite sprite;
    // A shadow lies under the item and on those before it: its alpha, blurred, on a canvas of the same size.
    scaledit_rectangle shaded;  // as `seen`
    double shadow_x;            // of the canvas' middle, -16 .. 16
    double shadow_y;            // -16 .. 16
    double shadow_darkness;     // what is taken of the light, 0 .. 1
    double shadow_deviation;    // of the Gaussian, 1e-6 .. 1; it reaches three of these, and half a canvas at most
    scaledit_sprite shadow;     // whole, with a side of 128
} scaledit_scene_item;

typedef struct scaledit_scene {
    int32_t size;             // of the whole picture, in pixels, 64 .. 8192
    scaledit_rectangle part;  // of it, that is painted
    int32_t background;       // a scaledit_background
    int32_t seed;             // of the background's textures
    // Meadow and snowy field: the horizon's height, 0.1 .. 1. Wooden table: planks, brick wall: courses, 1 .. 100 of
    // them. Sandy beach: the horizon's height, 0.001 .. 1, and the shore's, 0 .. 1. Sunset sea: the horizon's height,
    // likewise, and the middle of the glow, 0 .. 1. Plain: red, green and blue of the paper, 0 .. 1. Heights are from
    // the top. What is not named is not looked at.
    double drawn[3];
    int32_t items;                    // 0 .. 8
    const scaledit_scene_item* item;  // [items] in the host's memory, in the order in which they are painted
} scaledit_scene;

typedef struct scaledit_scene_arguments {
    scaledit_scene scene;
    int32_t pixels;           // a scaledit_pixels
    int32_t instruction_set;  // a scaledit_instruction_set
    void* output;             // written, of scene.part; float32 is 4-byte aligned
    void* workspace;          // scaledit_scene_workspace() bytes, 64-byte aligned; null where they are 0
    size_t workspace_bytes;
} scaledit_scene_arguments;

// Bytes of workspace that scaledit_scene_paint() and scaledit_cuda_scene_paint() need; no sprite is looked at.
SCALEDIT_API scaledit_status scaledit_scene_workspace(const scaledit_scene* scene, size_t* bytes);

// Paints on the caller's thread. The bits do not depend on the instruction set.
SCALEDIT_API scaledit_status scaledit_scene_paint(const scaledit_scene_arguments* arguments);

typedef struct scaledit_cuda_scene_arguments {
    scaledit_scene scene;  // sprites are in the GPU's memory, items in the host's
    int32_t pixels;        // a scaledit_pixels
    void* output;          // written, of scene.part; float32 is 4-byte aligned
    void* workspace;       // scaledit_scene_workspace() bytes of the GPU, 64-byte aligned; null where they are 0
    size_t workspace_bytes;
    void* stream;  // a cudaStream_t of the GPU whose memory this is
} scaledit_cuda_scene_arguments;

// The same picture, bit for bit, on an NVIDIA GPU (compute capability 8.0 and later): queued on the caller's stream,
// nothing is allocated, a CUDA graph can capture it. Without CUDA it answers SCALEDIT_UNSUPPORTED.
SCALEDIT_API scaledit_status scaledit_cuda_scene_paint(const scaledit_cuda_scene_arguments* arguments);

#ifdef __cplusplus
}
#endif

#endif  // SCALEDIT_SCALEDIT_H
