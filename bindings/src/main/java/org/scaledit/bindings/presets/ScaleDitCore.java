package org.scaledit.bindings.presets;

import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/** Tells JavaCPP how the C ABI in {@code scaledit/scaledit.h} reads in Java. */
@Properties(
        value = @Platform(include = "scaledit/scaledit.h", link = "scaledit"),
        target = "org.scaledit.bindings",
        global = "org.scaledit.bindings.ScaleDitCore")
public class ScaleDitCore implements InfoMapper {
    @Override
    public void map(InfoMap infoMap) {
        infoMap.put(new Info("SCALEDIT_API", "SCALEDIT_SCALEDIT_H").cppTypes().annotations());
        java(infoMap, "scaledit_geometry", "GeometryHandle");
        java(infoMap, "scaledit_geometry_options", "GeometryOptions");
        java(infoMap, "scaledit_geometry_info", "GeometryInfo");
        java(infoMap, "scaledit_tile", "Tile");
        java(infoMap, "scaledit_tile_range", "TileRange");
        java(infoMap, "scaledit_tensor", "TensorView");
        java(infoMap, "scaledit_attention_arguments", "AttentionArguments");
        java(infoMap, "scaledit_attention_backward_arguments", "AttentionBackwardArguments");
        java(infoMap, "scaledit_cuda_attention_backward_arguments", "CudaAttentionBackwardArguments");
        java(infoMap, "scaledit_cuda_norm_and_rotate_arguments", "CudaNormAndRotateArguments");
        java(infoMap, "scaledit_cuda_group_norm_arguments", "CudaGroupNormArguments");
        java(infoMap, "scaledit_cuda_attention_arguments", "CudaAttentionArguments");
        java(infoMap, "scaledit_matrix", "MatrixView");
        java(infoMap, "scaledit_modulation_part", "ModulationPart");
        java(infoMap, "scaledit_cuda_add_gated_arguments", "CudaAddGatedArguments");
        java(infoMap, "scaledit_cuda_modulate_arguments", "CudaModulateArguments");
        java(infoMap, "scaledit_cuda_quantize_arguments", "CudaQuantizeArguments");
        java(infoMap, "scaledit_cuda_pack_rows_arguments", "CudaPackRowsArguments");
        java(infoMap, "scaledit_cuda_unpack_rows_arguments", "CudaUnpackRowsArguments");
        java(infoMap, "scaledit_picture_vectors", "PictureVectors");
        java(infoMap, "scaledit_picture_gradients", "PictureGradients");
        java(infoMap, "scaledit_cuda_batch_modulate_arguments", "CudaBatchModulateArguments");
        java(infoMap, "scaledit_cuda_batch_modulate_gradient_arguments", "CudaBatchModulateGradientArguments");
        java(infoMap, "scaledit_cuda_batch_add_gated_arguments", "CudaBatchAddGatedArguments");
        java(infoMap, "scaledit_cuda_batch_add_gated_gradient_arguments", "CudaBatchAddGatedGradientArguments");
        java(infoMap, "scaledit_cuda_batch_norm_and_rotate_arguments", "CudaBatchNormAndRotateArguments");
        java(
                infoMap,
                "scaledit_cuda_batch_norm_and_rotate_gradient_arguments",
                "CudaBatchNormAndRotateGradientArguments");
        java(infoMap, "scaledit_cuda_join_gelu_arguments", "CudaJoinGeluArguments");
        java(infoMap, "scaledit_cuda_gelu_gradient_arguments", "CudaGeluGradientArguments");
        java(infoMap, "scaledit_rectangle", "PixelRectangle");
        java(infoMap, "scaledit_sprite", "SpriteView");
        java(infoMap, "scaledit_scene_item", "SceneItem");
        java(infoMap, "scaledit_scene", "SceneView");
        java(infoMap, "scaledit_scene_arguments", "SceneArguments");
        java(infoMap, "scaledit_cuda_scene_arguments", "CudaSceneArguments");
    }

    private static void java(InfoMap infoMap, String cName, String javaName) {
        infoMap.put(new Info(cName).pointerTypes(javaName));
    }
}
