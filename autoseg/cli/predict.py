"""``autoseg predict``: scans in, label maps out."""

from pathlib import Path

from autoseg.cli.common import Progress, add_isotropic, add_surfaces, positive, speaker, workspace_of
from autoseg.imaging.dicom_results import DICOM_RESULTS


def add_arguments(parser):
    parser.add_argument("-i", "--input", required=True, metavar="IN", help="a scan, a folder of cases, or DICOM files")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("-m", "--model", metavar="MODEL", help="model folder, zip or name; default: the workspace's only one")
    parser.add_argument("--folds", metavar="0,1", help="default: every fold of the model, averaged")
    parser.add_argument("--no-mirror", action="store_true", help="one view instead of the mean over mirrored ones; faster")
    parser.add_argument("--step", type=float, default=0.5, help="distance of windows, as a share of the window (default 0.5)")
    parser.add_argument("--probabilities", action="store_true", help="write CASE_probabilities.npz too")
    maps = "write where self-attention looks, as CASE_attention/stageS.nii.gz: of each head the N most selective slots (4)"
    parser.add_argument("--attention-maps", type=positive, nargs="?", const=4, default=0, metavar="N", help=maps)
    parser.add_argument(
        "--write", metavar="KINDS", default="", help=f"{','.join(DICOM_RESULTS)}: DICOM results too, of DICOM scans"
    )
    parser.add_argument("--resample-channels", action="store_true", help="bring channels onto the first one's grid")
    add_surfaces(parser)
    add_isotropic(parser, "CASE_iso (restored) and CASE_iso_cubic (interpolated)")
    parser.add_argument("--fold-agreement", action="store_true", help="measure how far the folds agree on each structure")
    parser.add_argument("--reference", metavar="DIR", help="score the results against the labels there")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=positive, help="threads for reading and writing")
    parser.add_argument("--shard", metavar="i/N", help="the i-th of N shares of the cases, counted from 0")
    parser.add_argument("--fresh", action="store_true", help="predict again what is done, over foreign files too")


def run(args):
    from autoseg.pipeline import predict

    done = predict(
        Path(args.input),
        Path(args.output),
        workspace_of(args),
        model=args.model,
        folds=args.folds,
        mirror=not args.no_mirror,
        step=args.step,
        probabilities=args.probabilities,
        attention_maps=args.attention_maps,
        resample_channels=args.resample_channels,
        write=tuple(kind.strip() for kind in args.write.split(",") if kind.strip()),
        surfaces=args.surfaces,
        decimate=args.decimate,
        coordinates=args.coordinates,
        isotropic=args.isotropic,
        fold_agreement=args.fold_agreement,
        reference=args.reference,
        device=args.device,
        workers=args.workers,
        shard=args.shard,
        fresh=args.fresh,
        say=speaker(args),
        progress=Progress(args),
    )
    print(done.summary())
    return 1 if done.failures else 0
