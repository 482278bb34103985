"""What the reference numbers say of face models: parsing, the Basel face model, FLAME's parameters, filters."""

import re
from collections.abc import Callable

import torch
from preprocess_standins import basel, flame, sizes
from reference import Arrays, Case, assert_close, captured, reference_folder, state_dict, strided_like
from torch import Tensor, nn

from portraitzoo.faces import parsing
from portraitzoo.faces.alignment import five_of_68
from portraitzoo.faces.bfm import IMAGE_SIZE as COEFFICIENT_SIZE
from portraitzoo.faces.bfm import BaselFace, in_camera, project
from portraitzoo.faces.bfm_to_flame import BfmToFlame, flame_label, flame_turn
from portraitzoo.faces.box_regressor import box_crop
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.faces.copo_alignment import (
    SIZE,
    align_photo,
    alignment_matrix,
    copo_crop,
    copo_five,
    copo_photo,
    recognition_matrix,
)
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_fit import FLAME_LIDS, FitSettings, LandmarkFit
from portraitzoo.faces.landmark_loss import JAW_LINE, OF_98, LandmarkLoss, fit_target
from portraitzoo.faces.motion_embedding import crop_face, crop_matrix
from portraitzoo.faces.one_euro import CROP_SCALE, CROP_TRANSLATION, OneEuro
from portraitzoo.faces.parsing import BiSeNet
from portraitzoo.faces.rotations import euler_rotation, rotation_matrix
from portraitzoo.faces.similarity import fit_similarity, warp
from portraitzoo.faces.skin_mask import skin_mask
from portraitzoo.faces.tracked_camera import intrinsics
from portraitzoo.hub.conversion import Conversion
from portraitzoo.hub.faces import bfm_to_flame as mapper_weights
from portraitzoo.hub.faces import parsing as parsing_weights
from portraitzoo.hub.faces.box_regressor import box_regressor
from portraitzoo.layers.conv_norm import fold_batch_norms
from portraitzoo.media.images import from_uint8
from portraitzoo.methods.portrait4d.objective import FACE_TEMPLATE, face_matrix, y_down

FUNCTION = 1e-5
BOX_PARTLY_OUTSIDE = (-40.0, -20.0, 80.0, 100.0)  # of bbreg.crop_out, which the notes do not keep


def loaded(network: Callable[..., nn.Module], conversion: Conversion) -> nn.Module:
    built = network(**conversion.config)
    built.load_state_dict(conversion.tensors["model"])
    return built.eval()


def check_mapper(case: Case) -> None:
    mapper = loaded(BfmToFlame, mapper_weights.convert(case.state_dict()))
    given = case.golden["in.coeff"].split([SIZES["identity"], SIZES["expression"]], dim=1)
    with captured({"hidden": mapper.hidden}) as outputs, torch.no_grad():
        head = mapper(*given)
    case.golden.check("mid.hidden", nn.functional.leaky_relu(outputs["hidden"], 0.01))
    case.golden.check("out.params", torch.cat([head.shape, head.expression, head.pose[:, 3:]], dim=1))


def kept(full: Tensor, golden: Arrays, name: str) -> Tensor:
    """What the notes say was kept of an array, as in "the image [:, ::8, ::4]"."""
    slices = re.findall(r"\[([:, \d]+)\]", golden.notes["arrays"][name]["text"])
    if not slices:
        return full
    return full[tuple(slice(None, None, int(part.strip(" :") or 1)) for part in slices[-1].split(","))]


def check_parsing(case: Case) -> None:
    golden = case.golden
    network = loaded(BiSeNet, parsing_weights.convert(case.state_dict()))
    pictures = golden["in.image"].view(-1, *golden["in.image"].shape[-3:])
    images = parsing.normalise(pictures.permute(0, 3, 1, 2) / 255.0)
    with captured({"arm32": network.attend32, "avg": network.whole}) as found, torch.no_grad():
        fused, eighth, sixteenth = network.features(images)
    found |= {"avg": found["avg"].relu(), "ffm": fused, "cp8": eighth, "cp16": sixteenth}
    with torch.no_grad():
        found |= {"feat8": network.resnet(images)[-3], "logits8": network.head(fused)}
        logits, auxiliary = network(images), network.auxiliary(images)
    for name in golden.keys("mid."):
        golden.check(name, kept(found[name.removeprefix("mid.")], golden, name), strided=False)
    outputs = {"logits": logits, "logits16": auxiliary[0], "logits32": auxiliary[1]}
    for name, output in outputs.items():
        golden.check(f"out.{name}", kept(output, golden, f"out.{name}"), strided=False)
    agreeing = kept(logits.argmax(1), golden, "out.labels") == golden["out.labels"]
    assert float(agreeing.double().mean()) > 0.999  # of two labels as likely rounding decides
    if pictures.shape[1:3] == (parsing.INPUT_SIZE, parsing.INPUT_SIZE):
        whole = fold_batch_norms(network).labels(pictures)
        assert float((kept(whole, golden, "out.labels") == golden["out.labels"]).double().mean()) > 0.999


def check_bfm2flame(arrays: Arrays) -> None:
    angles = arrays["angles"]
    arrays.check("rotation", euler_rotation(angles), FUNCTION)
    assert_close(rotation_matrix(arrays["pose"]), arrays["rotation"], FUNCTION, f"{arrays.case}/pose")
    arrays.check("pose_rectified", flame_turn(angles), FUNCTION)
    arrays.check("intrinsics", intrinsics(), FUNCTION)

    released = reference_folder("preprocess") / "bfm2flame_mlp" / "manifest.json"
    mapper = loaded(BfmToFlame, mapper_weights.convert(state_dict(released)))
    given = {"identity": arrays["file.id"], "expression": arrays["file.exp"], "angles": arrays["file.angle"]}
    rest = {name: torch.zeros(len(given["angles"]), size) for name, size in SIZES.items() if name not in given}
    faces = FaceCoefficients(**given, **rest)
    arrays.check("file.params", flame_label(faces, mapper), FUNCTION)
    arrays.check("file.params_no_mapper", flame_label(faces), FUNCTION)


def check_bfm(arrays: Arrays) -> None:
    faces = FaceCoefficients.from_vector(arrays["coeff"])
    about = arrays.notes["about"]
    every = int(re.search(r"sliced \[:, ::(\d+)\]", about)[1])
    real = basel()
    models = {"small": BaselFace(basel(*sizes(about))), "full": BaselFace(real), "copo_full": BaselFace(real, "mean")}
    for case, model in models.items():
        shape, camera = model.shape(faces), in_camera(model.posed(faces))
        found = {"shape": shape, "rotation": euler_rotation(faces.angles).mT, "normal": model.normals(shape)}
        found |= {"vertex_camera": camera, "projection": project(camera), "landmarks": model.landmarks(faces)}
        found |= {"texture": model.colours(faces), "color": model.lit_colours(faces)}
        for name in arrays.keys(f"{case}."):
            kind = name.removeprefix(f"{case}.")
            value = found[kind]
            if kind in ("landmarks", "projection"):
                value = y_down(value, COEFFICIENT_SIZE)  # which makes what is down up, as it was kept
            if case != "small" and kind != "landmarks":
                value = value[:, ::every]
            # Normals rest on differences of float32 positions about a hundred times larger: rounding shows.
            arrays.check(name, value, 1e-4 if kind in ("normal", "color") else FUNCTION, strided=False)


def check_flame_fit(arrays: Arrays) -> None:
    points, gaps = LandmarkLoss(arrays["loss.gt"]), LandmarkLoss(arrays["loss.pred"]).lid_gaps(arrays["loss.pred"])
    arrays.check("loss.gt_dists", points.gaps, FUNCTION)
    arrays.check("loss.pred_dist", gaps, FUNCTION)
    arrays.check("loss.righteye_pred_dist", gaps[:, :4], FUNCTION)
    arrays.check("loss.lefteye_pred_dist", gaps[:, 4:], FUNCTION)
    arrays.check("loss.stage1", points.placing(arrays["loss.pred"]), FUNCTION)
    arrays.check("loss.stage2_landmark", points.fitting(arrays["loss.pred"]), FUNCTION)

    target = fit_target(arrays["in.ldmk98"], arrays["in.ldmk68"])
    assert arrays["in.idx_98to70"][JAW_LINE:].tolist() == list(OF_98)
    fit = LandmarkFit(flame(), arrays["in.eyelids"], FLAME_LIDS)
    pose = torch.cat([arrays["in.pose"], arrays["in.jaw"]], dim=1)
    start = FlameParameters(arrays["in.shape"], arrays["in.exp"], pose, torch.zeros_like(pose))
    for name in arrays.keys("single") + arrays.keys("multi"):
        run = re.fullmatch(r"((single|multi)_(\d+)_(\d+))\.params", name)
        if run:
            settings = FitSettings(placing_steps=int(run[3]), fitting_steps=int(run[4]))
            found = fit.fit(start, target, one_person=run[2] == "multi", settings=settings)
            # Adam's steps have their size whatever the gradient's, so rounding grows with the number of steps.
            limit = 1e-4 if settings.placing_steps + settings.fitting_steps <= 20 else 1e-2
            arrays.check(f"{run[1]}.loss", torch.cat(found.losses), limit)
            arrays.check(name, found.labels(), limit)


def check_one_euro(arrays: Arrays) -> None:
    for name in arrays.keys("case"):
        if name.endswith(".params"):
            case = name.removesuffix(".params")
            smooth = OneEuro(*arrays[name].tolist()).smooth(arrays[f"{case}.x"], arrays[f"{case}.t"].tolist())
            arrays.check(f"{case}.y", smooth, FUNCTION)
    arrays.check("clip.t_smooth", CROP_TRANSLATION.smooth(arrays["clip.t"]), FUNCTION)
    arrays.check("clip.s_smooth", CROP_SCALE.smooth(arrays["clip.s"]), FUNCTION)


def check_copo(arrays: Arrays, case: str) -> None:
    photo, five = copo_photo(arrays[f"{case}.image"]), copo_five(arrays[f"{case}.points68"])
    arrays.check(f"{case}.five", five, FUNCTION)
    arrays.check(f"{case}.old_lm", y_down(five, SIZE)[None], FUNCTION)
    crop = copo_crop(photo, five)
    pixels = (crop.image.permute(2, 0, 1)[None] / 255)[:, :, ::8, ::8]
    arrays.check(f"{case}.crop", pixels, FUNCTION)
    # Landmarks of crops count from below the last row.
    arrays.check(f"{case}.crop_lm", y_down(crop.move(five), SIZE + 1)[None], FUNCTION)
    matrix = alignment_matrix(five, y_down(arrays[f"{case}.fix68"][0], COEFFICIENT_SIZE))
    # Its shift is the small difference of coordinates of hundreds of pixels, which the reference had in float32.
    arrays.check(f"{case}.M", matrix[None], 1e-4)
    moved = five @ matrix[:, :2].double().mT + matrix[:, 2].double()
    arrays.check(f"{case}.five_aligned", y_down(moved, SIZE)[None], FUNCTION)
    # A place in the photo is known to some 1e-5 of a pixel, and neighbouring pixels may be black and white.
    arrays.check(f"{case}.aligned", align_photo(photo, matrix)[:, :, ::8, ::8], 1e-4)


def check_grey_levels(arrays: Arrays, name: str, picture: Tensor) -> None:
    """Compare 8 bits that were interpolated: where a value is halfway between two, the last bit of its weights decides,
    which the reference had in float32. So single pixels may be one level off, and no more than one in a thousand.
    """
    arrays.check(name, picture, 1.01 / float(arrays[name].max()))
    agreeing = strided_like(picture, arrays[name].shape) == arrays[name]
    assert float(agreeing.double().mean()) > 0.999, f"{arrays.case}/{name}: not the same picture"


def check_copo_crop(arrays: Arrays) -> None:
    for name in arrays.keys("case"):
        if name.endswith(".image"):
            check_copo(arrays, name.removesuffix(".image"))

    image = arrays["recog.image"]
    landmarks = y_down(arrays["recog.lm68"].double(), len(image))
    arrays.check("recog.M286", recognition_matrix(landmarks, len(image)), FUNCTION)
    five = torch.stack([five_of_68(points) for points in landmarks])
    arrays.check("recog.M112", fit_similarity(five, torch.tensor(FACE_TEMPLATE).to(five).expand_as(five)), FUNCTION)
    pixels = image.permute(2, 0, 1)[None] / 255
    arrays.check("recog.warp112", warp(pixels, arrays["recog.M112"][:1], 112)[:, :, ::4, ::4], 1e-4)

    landmarks, photo = arrays["motion.lm68"], copo_photo(arrays["motion.image"])
    arrays.check("motion.M", crop_matrix(landmarks), FUNCTION)
    arrays.check("motion.M_reverse", crop_matrix(y_down(landmarks, SIZE)), FUNCTION)
    arrays.check("motion.crop", crop_face(from_uint8(photo[None]), landmarks)[:, :, ::2, ::2], 1e-4)
    arrays.check("motion.M_arcface70", face_matrix(arrays["motion.lm70"], SIZE), FUNCTION)

    arrays.check("skin.mask", skin_mask(arrays["skin.image_bgr"].flip(-1)[None])[0], FUNCTION)

    regressor = box_regressor({name: arrays[f"bbreg.{name}"].numpy() for name in ("W1", "B1", "W2", "B2")})
    boxes = regressor(arrays["bbreg.five"])
    arrays.check("bbreg.box", torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1), FUNCTION)
    image, first, size = arrays["bbreg.crop_image"], *arrays["bbreg.crop_box"].double().split(2)
    crop = box_crop(image, torch.cat([first, first + size]))
    arrays.check("bbreg.crop_scale", torch.tensor(crop.scale, dtype=torch.float64), FUNCTION)
    check_grey_levels(arrays, "bbreg.crop", crop.image)
    check_grey_levels(arrays, "bbreg.crop_out", box_crop(image, torch.tensor(BOX_PARTLY_OUTSIDE)).image)


NETWORKS: dict[str, Callable[[Case], None]] = {"bfm2flame_mlp": check_mapper, "bisenet_face_parsing": check_parsing}
FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "bfm": check_bfm,
    "bfm2flame": check_bfm2flame,
    "copo_crop": check_copo_crop,
    "flame_fit": check_flame_fit,
    "one_euro": check_one_euro,
}
