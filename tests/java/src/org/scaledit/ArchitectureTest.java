package org.scaledit;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.Architectures.layeredArchitecture;

import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;
import com.tngtech.archunit.library.dependencies.SlicesRuleDefinition;

/** Dependencies point one way, from the command line down to the bindings. */
@AnalyzeClasses(packages = "org.scaledit", importOptions = ImportOption.DoNotIncludeTests.class)
class ArchitectureTest {

    @ArchTest
    static final ArchRule LAYERS = layeredArchitecture()
            .consideringOnlyDependenciesInAnyPackage("org.scaledit..")
            .layer("cli")
            .definedBy("org.scaledit.cli..")
            .layer("evaluation")
            .definedBy("org.scaledit.evaluation..")
            .layer("facade")
            .definedBy("org.scaledit")
            .layer("training")
            .definedBy("org.scaledit.training..")
            .layer("judge")
            .definedBy("org.scaledit.judge..")
            .layer("inception")
            .definedBy("org.scaledit.inception..")
            .layer("scenes")
            .definedBy("org.scaledit.scenes..")
            .layer("sampling")
            .definedBy("org.scaledit.sampling..")
            .layer("transformer")
            .definedBy("org.scaledit.transformer..")
            .layer("vae")
            .definedBy("org.scaledit.vae..")
            .layer("text")
            .definedBy("org.scaledit.text..")
            .layer("attention")
            .definedBy("org.scaledit.attention..")
            .layer("ranks")
            .definedBy("org.scaledit.ranks..")
            .layer("image")
            .definedBy("org.scaledit.image..")
            .layer("checkpoint")
            .definedBy("org.scaledit.checkpoint..")
            .layer("tensor")
            .definedBy("org.scaledit.tensor..")
            .layer("file")
            .definedBy("org.scaledit.file..")
            .layer("bindings")
            .definedBy("org.scaledit.bindings..")
            .whereLayer("cli")
            .mayNotBeAccessedByAnyLayer()
            .whereLayer("evaluation")
            .mayOnlyBeAccessedByLayers("cli")
            .whereLayer("scenes")
            .mayOnlyBeAccessedByLayers("judge", "training", "evaluation", "cli")
            .whereLayer("judge")
            .mayOnlyBeAccessedByLayers("training", "evaluation", "cli")
            .whereLayer("inception")
            .mayOnlyBeAccessedByLayers("evaluation", "cli")
            .whereLayer("facade")
            .mayOnlyBeAccessedByLayers("cli", "evaluation")
            .whereLayer("training")
            .mayOnlyBeAccessedByLayers("cli", "evaluation")
            .whereLayer("sampling")
            .mayOnlyBeAccessedByLayers("training", "facade", "evaluation")
            .whereLayer("transformer")
            .mayOnlyBeAccessedByLayers("sampling", "training", "facade", "evaluation")
            .whereLayer("vae")
            .mayOnlyBeAccessedByLayers("judge", "sampling", "training", "facade", "evaluation")
            .whereLayer("text")
            .mayOnlyBeAccessedByLayers("sampling", "training", "facade", "evaluation")
            .whereLayer("attention")
            .mayOnlyBeAccessedByLayers("transformer", "sampling", "training", "facade", "evaluation")
            .whereLayer("ranks")
            .mayOnlyBeAccessedByLayers("attention", "vae", "sampling", "training", "facade", "evaluation")
            .whereLayer("file")
            .mayOnlyBeAccessedByLayers(
                    "ranks", "checkpoint", "text", "image", "training", "scenes", "facade", "evaluation", "cli")
            .whereLayer("bindings")
            .mayOnlyBeAccessedByLayers("transformer", "vae", "attention", "scenes", "tensor");

    @ArchTest
    static final ArchRule LEAVES = noClasses()
            .that()
            .resideInAnyPackage("org.scaledit.tensor..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("org.scaledit.checkpoint..", "org.scaledit.image..", "org.scaledit.attention..");

    @ArchTest
    static final ArchRule NO_CYCLES = SlicesRuleDefinition.slices()
            .matching("org.scaledit.(*)..")
            .should()
            .beFreeOfCycles();
}
