package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.testing.Golden;

class SoftmaxAttentionTest {
    private static final long TOKENS = 70;
    private static final double SCALE = 0.7;

    enum Bias {
        NONE,
        NUMBERS,
        BOOLEANS,
        CAUSAL
    }

    @ParameterizedTest
    @EnumSource
    void inBfloat16ItIsTheExactOneRoundedOnce(Bias kind) {
        Tensors.run(() -> {
            Tensor query = random();
            Tensor key = random();
            Tensor value = random();
            Tensor numbers = torch.randn(1, 3, TOKENS, TOKENS).to(torch.ScalarType.BFloat16);
            Tensor seen = torch.randn(1, 1, TOKENS, TOKENS).gt(new Scalar(0));
            TensorOptional bias = switch (kind) {
                case NUMBERS -> Tensors.optional(numbers);
                case BOOLEANS -> Tensors.optional(seen);
                case NONE, CAUSAL -> Tensors.none();
            };
            Tensor attended =
                    SoftmaxAttention.attend(query, key, value, bias, kind == Bias.CAUSAL, new DoubleOptional(SCALE));
            assertThat(attended.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);

            Tensor scores = exact(query).matmul(exact(key).transpose(2, 3)).mul(new Scalar(SCALE));
            Tensor biased = switch (kind) {
                case NONE -> scores;
                case NUMBERS -> scores.add(exact(numbers));
                case BOOLEANS -> unseen(scores, seen.logical_not());
                case CAUSAL -> unseen(scores, torch.ones(TOKENS, TOKENS).triu(1).gt(new Scalar(0)));
            };
            Tensor expected =
                    torch.softmax(biased, -1, new ScalarTypeOptional()).matmul(exact(value));
            assertThat(Golden.relativeL2(attended, expected)).isLessThan(2.5e-3);
        });
    }

    @Test
    void gradientsGoThroughIt() {
        Tensors.run(() -> {
            Tensor query = random();
            Tensor key = random();
            Tensor value = random();
            query.set_requires_grad(true);
            SoftmaxAttention.attend(query, key, value).sum().backward();
            Tensor wide = query.detach().to(torch.ScalarType.Double);
            wide.set_requires_grad(true);
            SoftmaxAttention.attend(wide, exact(key), exact(value)).sum().backward();
            assertThat(query.grad().scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
            assertThat(Golden.relativeL2(query.grad(), wide.grad())).isLessThan(2.5e-3);
        });
    }

    private static Tensor random() {
        return torch.randn(2, 3, TOKENS, 16).to(torch.ScalarType.BFloat16);
    }

    private static Tensor exact(Tensor tensor) {
        return tensor.to(torch.ScalarType.Double);
    }

    private static Tensor unseen(Tensor scores, Tensor where) {
        return scores.masked_fill(where, new Scalar(Double.NEGATIVE_INFINITY));
    }
}
