/* The header is C, and the library is all that a C program needs. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaledit/scaledit.h"

enum { HEAD_DIM = 64, TOKENS = 3 };

static void require(int holds, const char* what) {
    if (!holds) {
        fprintf(stderr, "failed: %s (last error: \"%s\")\n", what, scaledit_last_error());
        exit(1);
    }
}

/* Two text tokens and an image of one token, equal keys: every query sees the mean of the values. */
static void attend(const scaledit_geometry* geometry) {
    float query[TOKENS * HEAD_DIM], key[TOKENS * HEAD_DIM], value[TOKENS * HEAD_DIM], output[TOKENS * HEAD_DIM];
    float log_sum_exp[TOKENS];
    for (int i = 0; i < TOKENS * HEAD_DIM; ++i) {
        query[i] = 0.5f;
        key[i] = 0.25f;
        value[i] = (float)(i / HEAD_DIM); /* the token's number */
        output[i] = NAN;
    }
    scaledit_attention_arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.geometry = geometry;
    arguments.heads = 1;
    arguments.head_dim = HEAD_DIM;
    arguments.scale = 0.125f;
    arguments.arithmetic = SCALEDIT_ARITHMETIC_FLOAT32;
    arguments.query = (scaledit_tensor){query, HEAD_DIM, HEAD_DIM, SCALEDIT_FLOAT32};
    arguments.key = (scaledit_tensor){key, HEAD_DIM, HEAD_DIM, SCALEDIT_FLOAT32};
    arguments.value = (scaledit_tensor){value, HEAD_DIM, HEAD_DIM, SCALEDIT_FLOAT32};
    arguments.output = (scaledit_tensor){output, HEAD_DIM, HEAD_DIM, SCALEDIT_FLOAT32};
    arguments.log_sum_exp = log_sum_exp;
    require(scaledit_attention_workspace(&arguments, &arguments.workspace_bytes) == SCALEDIT_OK, "workspace");
    const size_t rounded = (arguments.workspace_bytes + 63) / 64 * 64;
    arguments.workspace = aligned_alloc(64, rounded > 0 ? rounded : 64);
    require(scaledit_attention(&arguments) == SCALEDIT_OK, "attention");
    free(arguments.workspace);

    for (int i = 0; i < TOKENS * HEAD_DIM; ++i) {
        require(fabsf(output[i] - 1.0f) < 1e-6f, "output is the mean of 0, 1 and 2");
    }
    for (int i = 0; i < TOKENS; ++i) { /* 3 keys of logit 0.125 * 64 * 0.5 * 0.25 = 1 */
        require(fabsf(log_sum_exp[i] - (logf(3.0f) + 1.0f)) < 1e-5f, "log_sum_exp is ln 3 + 1");
    }
}

int main(void) {
    require(strlen(scaledit_version()) > 0, "version");
    require(strcmp(scaledit_last_error(), "") == 0, "no error yet");

    scaledit_geometry_options options;
    require(scaledit_geometry_defaults(&options) == SCALEDIT_OK, "defaults");
    options.text_tokens = 2;
    options.image_width = 1;
    options.image_height = 1;
    options.ratio = 0;
    scaledit_geometry* geometry = NULL;
    require(scaledit_geometry_create(&options, &geometry) == SCALEDIT_OK, "create");

    scaledit_geometry_info info;
    require(scaledit_geometry_describe(geometry, &info) == SCALEDIT_OK, "describe");
    require(info.tokens == TOKENS && info.tiles == 2 && info.ranges == 2 && info.pairs == 9, "3 tokens see 3 tokens");
    attend(geometry);
    scaledit_geometry_destroy(geometry);

    options.window = 17;
    require(scaledit_geometry_create(&options, &geometry) == SCALEDIT_INVALID_ARGUMENT, "refused");
    require(geometry == NULL, "nothing to destroy");
    require(strcmp(scaledit_last_error(), "window is 17, expected 16, 32 or 64 tokens") == 0, "message");
    require(scaledit_instruction_set_supported(scaledit_instruction_set_best()) == SCALEDIT_OK, "best is supported");
    return 0;
}
