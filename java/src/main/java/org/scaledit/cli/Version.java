package org.scaledit.cli;

import org.scaledit.ScaleDit;
import picocli.CommandLine.IVersionProvider;

/** What {@code --version} prints. */
final class Version implements IVersionProvider {
    @Override
    public String[] getVersion() {
        return new String[] {"Scale-DiT for Java " + ScaleDit.version()};
    }
}
