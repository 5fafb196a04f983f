package org.scaledit.sampling;

import java.util.Optional;
import org.scaledit.text.Conditioning;
import org.scaledit.transformer.Denoiser;

/**
 * What a picture is to show and, with classifier-free guidance, what it is not to show.
 *
 * @param trueGuidance diffusers' {@code true_cfg_scale}: how strongly a picture is led away from the negative text; without
 *     one it means nothing
 */
public record Prompt(Conditioning text, Optional<Conditioning> negative, double trueGuidance) {

    /** Without classifier-free guidance. */
    public static Prompt of(Conditioning text) {
        return new Prompt(text, Optional.empty(), 1);
    }

    /** The same on the CPU, in the caller's scope: for ranks on several GPUs. */
    public Prompt onHost() {
        return new Prompt(onHost(text), negative.map(Prompt::onHost), trueGuidance);
    }

    private static Conditioning onHost(Conditioning given) {
        return new Conditioning(given.states().cpu(), given.pooled().cpu());
    }

    int textTokens() {
        return Math.toIntExact(text.states().size(0));
    }

    /** Makes a denoiser of the text one of both texts. */
    void guide(Denoiser denoiser) {
        negative.ifPresent(other -> denoiser.guideAwayFrom(other.states(), other.pooled(), trueGuidance));
    }
}
