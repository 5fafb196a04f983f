package org.scaledit.sampling;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** Euler integration of the flow: {@code x += (σ' − σ) · velocity(x, σ)}, in float32. */
final class Euler {
    private Euler() {}

    /** What the model predicts for noisy latents: the direction from picture to noise. */
    @FunctionalInterface
    interface Velocity {
        /** @return {@code [tokens, 64]} for latents {@code [tokens, 64]} at a noise level 0 … 1, all float32 */
        Tensor at(Tensor latents, float sigma);
    }

    /** Told of the state before the first step (step 0) and after each step. */
    @FunctionalInterface
    interface Observer {
        /** @param latents {@code [tokens, 64]}, float32; valid during the call */
        void reached(int step, Tensor latents);
    }

    /**
     * Runs the steps of {@code schedule} from {@code firstStep} on.
     *
     * @param start {@code [tokens, 64]}, float32, at the sigma of {@code firstStep}
     * @return {@code [tokens, 64]}, float32, at sigma 0
     */
    static Tensor integrate(Tensor start, Schedule schedule, int firstStep, Velocity velocity, Observer observer) {
        float[] sigmas = schedule.sigmas();
        observer.reached(0, start);
        Tensor latents = Tensors.keep(start);
        try {
            for (int i = firstStep; i < schedule.steps(); i++) {
                Tensor next = step(latents, velocity, sigmas[i], sigmas[i + 1]);
                latents.close();
                latents = next;
                observer.reached(i + 1 - firstStep, latents);
            }
            Tensor end = latents;
            return Tensors.scoped(() -> end);
        } finally {
            latents.close();
        }
    }

    private static Tensor step(Tensor latents, Velocity velocity, float sigma, float nextSigma) {
        return Tensors.outlive(() -> latents.add(velocity.at(latents, sigma).mul(new Scalar(nextSigma - sigma))));
    }
}
