package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.List;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.LoraFile;

/**
 * A LoRA and how strongly it acts.
 *
 * @param scale multiplies the LoRA's own scale; 1 as trained
 */
public record ScaledLora(Lora lora, double scale) {

    /**
     * Reads LoRAs, which are the caller's to close.
     *
     * @throws org.scaledit.checkpoint.CheckpointException naming the first that cannot be read
     */
    public static List<ScaledLora> load(List<LoraFile> files) {
        List<ScaledLora> loras = new ArrayList<>();
        try {
            for (LoraFile file : files) {
                loras.add(new ScaledLora(Lora.load(file.file()), file.scale()));
            }
            return loras;
        } catch (RuntimeException | Error e) {
            loras.forEach(loaded -> loaded.lora().close());
            throw e;
        }
    }
}
