package org.scaledit.tensor;

import static org.bytedeco.cuda.global.cublas.*;
import static org.bytedeco.cuda.global.cudart.CUDA_R_16BF;
import static org.bytedeco.cuda.global.cudart.CUDA_R_32F;
import static org.bytedeco.cuda.global.cudart.CUDA_R_8F_E4M3;

import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import org.bytedeco.cuda.cublas.cublasLtContext;
import org.bytedeco.cuda.cublas.cublasLtMatmulDescOpaque_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulHeuristicResult_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulPreferenceOpaque_t;
import org.bytedeco.cuda.cublas.cublasLtMatrixLayoutOpaque_t;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/** What cuBLASLt can do and torch's products in FP8 do not offer: to add to what there is. */
final class CublasLt {
    /** As torch gives it on Hopper. */
    private static final long WORKSPACE_BYTES = 32L << 20;

    /** Each GPU's, made when it is first used, for the life of the process, as torch's own are. */
    private static final Map<Integer, cublasLtContext> CONTEXTS = new ConcurrentHashMap<>();

    private record Shape(int gpu, long rows, long in, long out) {}

    /** For each shape what cuBLASLt thinks best, or that it has no kernel: so for few rows and many columns. */
    private static final Map<Shape, Optional<cublasLtMatmulHeuristicResult_t>> CHOICES = new ConcurrentHashMap<>();

    private CublasLt() {}

    /** {@code y += x Wᵀ + b}; see {@link MatrixProduct#addInto}. */
    static boolean addInto(Matrix x, Matrix weight, Tensor bias, Tensor y) {
        return Tensors.compute(() -> {
            int gpu = Cuda.current();
            cublasLtContext context = CONTEXTS.computeIfAbsent(gpu, first -> create());
            Shape shape = new Shape(gpu, x.rows(), x.columns(), weight.rows());
            // cuBLASLt's matrices lie column by column: it computes yᵀ = W xᵀ.
            cublasLtMatrixLayoutOpaque_t ofWeight = layout(CUDA_R_8F_E4M3, shape.in, shape.out, shape.in);
            cublasLtMatrixLayoutOpaque_t ofX = layout(CUDA_R_8F_E4M3, shape.in, shape.rows, shape.in);
            cublasLtMatrixLayoutOpaque_t ofY = layout(CUDA_R_16BF, shape.out, shape.rows, y.stride(0));
            cublasLtMatmulDescOpaque_t product = new cublasLtMatmulDescOpaque_t();
            check(cublasLtMatmulDescInit(product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
            set(product, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
            check(cublasLtMatmulDescSetAttribute(
                    product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, new BytePointer(new byte[] {1}), 1));
            set(product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
            set(product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
            set(product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, MatrixProduct.alignedScales(weight));
            set(product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, MatrixProduct.alignedScales(x));
            set(product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
            set(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
            set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
            Optional<cublasLtMatmulHeuristicResult_t> choice =
                    CHOICES.computeIfAbsent(shape, asked -> choose(context, product, ofWeight, ofX, ofY));
            if (choice.isEmpty()) {
                return false;
            }

            FloatPointer one = new FloatPointer(1f);
            Tensor workspace = torch.empty(
                    new long[] {WORKSPACE_BYTES}, new Placement(torch.ScalarType.Byte, true).options(), null);
            Pointer stream = Cuda.currentStream();
            check(cublasLtMatmul(
                    context,
                    product,
                    one,
                    weight.values().data_ptr(),
                    ofWeight,
                    x.values().data_ptr(),
                    ofX,
                    one,
                    y.data_ptr(),
                    ofY,
                    y.data_ptr(),
                    ofY,
                    choice.get().algo(),
                    workspace.data_ptr(),
                    WORKSPACE_BYTES,
                    stream == null ? null : new CUstream_st(stream)));
            return true;
        });
    }

    /** For the GPU of this thread. */
    private static cublasLtContext create() {
        return Tensors.outlive(() -> {
            cublasLtContext made = new cublasLtContext();
            check(cublasLtCreate(made));
            return made;
        });
    }

    private static Optional<cublasLtMatmulHeuristicResult_t> choose(
            cublasLtContext context,
            cublasLtMatmulDescOpaque_t product,
            cublasLtMatrixLayoutOpaque_t ofWeight,
            cublasLtMatrixLayoutOpaque_t ofX,
            cublasLtMatrixLayoutOpaque_t ofY) {
        return Tensors.compute(() -> {
            cublasLtMatmulPreferenceOpaque_t preference = new cublasLtMatmulPreferenceOpaque_t();
            check(cublasLtMatmulPreferenceInit(preference));
            check(cublasLtMatmulPreferenceSetAttribute(
                    preference,
                    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                    new LongPointer(new long[] {WORKSPACE_BYTES}),
                    Long.BYTES));
            cublasLtMatmulHeuristicResult_t found = new cublasLtMatmulHeuristicResult_t();
            IntPointer count = new IntPointer(new int[] {0});
            int status = cublasLtMatmulAlgoGetHeuristic(
                    context, product, ofWeight, ofX, ofY, ofY, preference, 1, found, count);
            if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_SUCCESS && count.get() == 0) {
                return Optional.empty();
            }
            check(status);
            return Optional.of(found.retainReference());
        });
    }

    private static cublasLtMatrixLayoutOpaque_t layout(int type, long rows, long columns, long stride) {
        cublasLtMatrixLayoutOpaque_t layout = new cublasLtMatrixLayoutOpaque_t();
        check(cublasLtMatrixLayoutInit(layout, type, rows, columns, stride));
        return layout;
    }

    private static void set(cublasLtMatmulDescOpaque_t product, int attribute, int value) {
        check(cublasLtMatmulDescSetAttribute(product, attribute, new IntPointer(new int[] {value}), Integer.BYTES));
    }

    /** Sets where a vector lies. */
    private static void set(cublasLtMatmulDescOpaque_t product, int attribute, Tensor vector) {
        long address = vector.data_ptr().address();
        check(cublasLtMatmulDescSetAttribute(product, attribute, new LongPointer(new long[] {address}), Long.BYTES));
    }

    private static void check(int status) {
        if (status != CUBLAS_STATUS_SUCCESS) {
            throw new IllegalStateException(
                    "cuBLASLt answers: " + cublasLtGetStatusString(status).getString());
        }
    }
}
