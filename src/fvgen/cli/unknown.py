"""What is said of an option that a command does not have: what it is called here."""

import difflib
import re

_CALLED_ELSEWHERE = {  # our option: what diffusers, nerfstudio, gsplat, COLMAP and others call it; "": no option at all
    "": "-i -s --input --input-dir --input-path --images --image-dir --image-path --image-folder --photos --source "
    "--source-path --data --data-dir --datadir --scene-dir --load --load-config --ckpt --checkpoint --ply "
    "--logdir --log-dir",
    "--data": "--dataset --data-dir --data-root --datasets --train-data-dir --instance-data-dir",
    "--output": "--out --out-dir --outdir --output-dir --output-path --result-dir --results --save-dir --save-path "
    "--save --export-path --export-dir --model-path --work-dir",
    "--model": "-m --checkpoint --ckpt --ckpt-path --weights --pretrained --pretrained-model "
    "--pretrained-model-name-or-path --model-path --model-name",
    "--models": "-m --model --checkpoint --ckpt --systems --pretrained-model-name-or-path",
    "--teacher": "--model --teacher-model --ckpt --checkpoint --pretrained-model-name-or-path --real-score",
    "--steps": "--num-inference-steps --num-steps --sampling-steps --ddim-steps --max-steps --max-train-steps "
    "--train-steps --max-num-iterations --iterations --iters --epochs --num-train-epochs --denoising-steps",
    "--iterations": "--max-steps --max-num-iterations --num-iterations --iters --steps --num-steps --epochs",
    "--lr": "--learning-rate --base-lr --max-lr",
    "--batch": "--batch-size --train-batch-size --bs --global-batch-size",
    "--accumulate": "--gradient-accumulation-steps --grad-accum --accumulate-grad-batches --gradient-accumulation",
    "--recompute": "--gradient-checkpointing --checkpoint-activations --activation-checkpointing",
    "--ema": "--ema-decay --use-ema",
    "--save-every": "--checkpointing-steps --save-steps --save-interval --steps-per-save --checkpoint-every",
    "--keep": "--checkpoints-total-limit --save-total-limit --save-top-k",
    "--log-every": "--logging-steps --log-interval --print-every",
    "--tensorboard": "--report-to --logger --vis --use-tensorboard",
    "--lora.rank": "--rank --lora-rank --lora-r --lora",
    "--adam.clip": "--max-grad-norm --grad-clip --clip-grad --gradient-clip-val",
    "--adam.decay": "--weight-decay --adam-weight-decay --wd",
    "--bf16": "--mixed-precision --precision --amp --fp16 --half --dtype --torch-dtype",
    "--dtype": "--mixed-precision --precision --amp --fp16 --bf16 --half --torch-dtype",
    "--device": "-d --gpu --gpus --gpu-id --gpu-index --cuda --use-gpu --cpu --accelerator --num-devices",
    "--offload": "--enable-model-cpu-offload --cpu-offload --enable-sequential-cpu-offload --low-vram --lowvram",
    "--compile": "--torch-compile --use-compile",
    "--guidance-scale": "-g --cfg --cfg-scale --scale --unconditional-guidance-scale --guidance --cfg-weight",
    "--seed": "--random-seed --manual-seed --rng-seed",
    "--frames": "-n --num-frames --n-frames --video-length --length --nframes --num-views",
    "--size": "-r --resolution --image-size --img-size --width --height --video-size --downscale-factor "
    "--data-factor --max-image-size --res --longest",
    "--longest": "--size --resolution --image-size --downscale-factor --data-factor --max-image-size",
    "--gaussians": "--init-num-pts --num-points --num-gaussians --max-gaussians --cap-max",
    "--fps": "--frame-rate --framerate --frames-per-second --output-fps",
    "--path": "--camera-path --camera-path-filename --trajectory --render-trajectory --traj --render-traj-path "
    "--traj-path --orbit --mode --motion",
    "--geometry": "--sfm --sfm-tool --pose-estimator --matcher --matching-method --camera-model --mapper",
    "--depth": "--depth-model --depth-estimator",
    "--workers": "-j --num-workers --dataloader-num-workers --num-threads --jobs --n-jobs --processes --num-proc",
    "--threads": "-j --num-threads --num-workers --cpus",
    "--ray-address": "--address --ray --cluster",
    "--textures": "--texture-dir --photos --images",
    "--metrics": "--metric --eval-metrics",
    "--baselines": "--baseline",
    "--overwrite": "-f -y --force --yes --replace --exist-ok --clobber",
    "--quiet": "-q --silent --no-progress --disable-progress-bar --no-verbose",
    "--port": "-p --websocket-port --server-port --viewer.websocket-port",
    "--host": "--ip --address --server-name --viewer.websocket-host",
    "--background": "--background-color --bg --bg-color --white-background",
    "--title": "--name --heading",
}

_CLOSE = 0.75  # below, what looks alike means something else: --verbose is not --overwrite


def unknown_option(arguments: list[str], page: str) -> str | None:
    """What is said of the first option that a command does not have; it comes before all else.

    Args:
        arguments: of the command.
        page: its ``--help``.
    """
    known = re.findall(r"(?<![\w-])(?:--[a-z][\w.-]*|-[a-z]\b)", page)
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if not re.fullmatch(r"--[a-zA-Z][\w.-]*|-[a-zA-Z]", option) or option in known:
            continue
        named = [own for own, others in _CALLED_ELSEWHERE.items() if option.lower() in others.split()]
        if "" in named and "positional arguments" in page:
            return f"there is no option {option}: what is read is named without an option"
        near = [own for own in named if own in known]
        near = near if named else difflib.get_close_matches(option, known, 1, _CLOSE)
        return f"there is no option {option}" + (f": did you mean {near[0]}?" if near else "")
    return None
