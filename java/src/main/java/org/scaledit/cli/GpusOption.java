package org.scaledit.cli;

import java.util.OptionalInt;
import org.scaledit.ScaleDit;
import org.scaledit.ScaleDit.Device;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * How many GPUs.
 *
 * @param count empty for all
 */
record GpusOption(OptionalInt count) {

    void apply(ScaleDit.Builder builder) {
        if (count.isPresent()) {
            builder.gpus(count.getAsInt());
        } else {
            builder.allGpus();
        }
    }

    /** @throws IllegalArgumentException in one sentence, if they are asked for on a CPU, or fewer than one */
    void require(Device device) {
        if (device == Device.CPU) {
            throw new IllegalArgumentException(
                    "gpus is " + (count.isEmpty() ? "all" : count.getAsInt()) + ", expected --device cuda beside it");
        }
        if (count.orElse(1) < 1) {
            throw new IllegalArgumentException("gpus is " + count.getAsInt() + ", expected 1 or more");
        }
    }

    static final class Converter implements ITypeConverter<GpusOption> {
        @Override
        public GpusOption convert(String value) {
            if (value.equals("all")) {
                return new GpusOption(OptionalInt.empty());
            }
            try {
                return new GpusOption(OptionalInt.of(Integer.parseInt(value)));
            } catch (NumberFormatException e) {
                throw new TypeConversionException("expected a number or all but was '" + value + "'");
            }
        }
    }
}
