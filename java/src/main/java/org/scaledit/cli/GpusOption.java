package org.scaledit.cli;

import java.util.OptionalInt;
import org.scaledit.ScaleDit;
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
