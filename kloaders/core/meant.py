"""Suggests the option that an unknown name means: misspelt, or known from Keras, torch or tf.data."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["meant_by"]

# Names at least this similar count as misspelt: "sise" is size, "shufle" is shuffle.
_ALIKE = 0.75


class _Option(NamedTuple):
    """Our names (the first one that a loader has is suggested), advice on the value, others' names."""

    ours: tuple[str, ...]
    value: str
    names: str


class _Advice(NamedTuple):
    """Something that is not a loader option: how to do it instead, and what other libraries call it."""

    text: str
    names: str


_OPTIONS: tuple[_Option, ...] = (
    _Option(
        ("size",),
        ", as size=(height, width)",
        "image_size target_size img_size image_shape img_shape input_shape input_size target_shape "
        "resize resize_to resolution height width image_height image_width img_height img_width shape",
    ),
    _Option(
        ("channels",),
        ": 3 for RGB, 1 for gray, 4 for RGBA",
        "color_mode colour_mode num_channels n_channels grayscale greyscale rgb image_mode",
    ),
    _Option(
        ("transform",),
        ", a function transform(x, y, rng) that returns (x, y)",
        "augment augmentation augmentations augmenter augs aug data_augmentation map map_func map_fn "
        "map_function transforms transform_fn transformation transformations target_transform "
        "image_transform label_transform random_flip random_rotation random_crop",
    ),
    _Option(
        ("preprocess", "transform"),
        ", a function of (x, y, rng) that returns (x, y)",
        "preprocessing_function preprocessing preprocess_fn preprocess_func preprocessor "
        "preprocess_input preprocess_function",
    ),
    _Option(
        ("batch_transform",),
        ", a function batch_transform(x, y, rng) of a whole batch; padded_batches(loader) pads",
        "collate_fn collate collate_function collator batch_fn mixup cutmix padded_batch",
    ),
    _Option(
        ("max_queue_size",),
        ", the maximum number of prefetched batches",
        "prefetch prefetch_size prefetch_factor prefetch_buffer_size num_prefetch queue_size "
        "prefetch_batches",
    ),
    _Option(
        ("workers",),
        ", the number of threads that load; leave it out, and the loader chooses",
        "num_workers n_workers nb_workers num_threads n_threads threads max_workers n_jobs "
        "num_parallel_calls num_parallel_reads num_parallel cycle_length parallelism",
    ),
    _Option(
        ("processes",),
        "=True; workers= is their number",
        "multiprocessing num_processes n_processes num_proc multiprocessing_context",
    ),
    _Option(
        ("shuffle",),
        ": all samples are shuffled, without a buffer, and again in each epoch",
        "buffer_size shuffle_buffer shuffle_buffer_size shuffle_size shuffle_files "
        "reshuffle_each_iteration reshuffle",
    ),
    _Option(
        ("seed",),
        ", which fixes the order and all random numbers",
        "random_state random_seed shuffle_seed generator rng worker_init_fn deterministic rng_seed",
    ),
    _Option(
        ("epoch_batches",),
        ", the number of batches per epoch",
        "steps steps_per_epoch num_steps n_steps batches_per_epoch samples_per_epoch num_batches",
    ),
    _Option(
        ("drop_last",),
        "",
        "drop_remainder drop_incomplete skip_last drop_partial drop_final_batch",
    ),
    _Option(
        ("samples_per_file",),
        ", as samples_per_file=4 with a transform that cuts one patch",
        "patches patches_per_file patches_per_image samples_per_image samples_per_volume crops",
    ),
    _Option(("pad_last",), "", "pad_remainder pad_batch pad_last_batch"),
    _Option(
        ("shard",),
        ", as shard=(k, n): part k of n",
        "num_shards shard_index rank world_size num_replicas num_hosts host_id process_index "
        "process_count",
    ),
    _Option(
        ("sample_weights",),
        ", one weight per sample for the loss; sampling_weights= sets how often a sample is drawn",
        "weights sample_weight loss_weights weight",
    ),
    _Option(
        ("class_weight", "class_balance"),
        "",
        "class_weights classes_weight",
    ),
    _Option(
        ("sampling_weights",),
        ", one number per sample: how often it is drawn; class_balance=True balances classes, and "
        "subset(loader, numbers) selects samples",
        "sampler batch_sampler sampling sampling_strategy oversample weighted_sampler",
    ),
    _Option(("class_balance",), "=True", "balance balanced balance_classes"),
    _Option(
        ("rescale",),
        ", a factor such as 1/255; a Rescaling layer in the model costs less",
        "normalize normalise scale normalization rescaling scaling",
    ),
    _Option(
        ("aspect",),
        ': "crop", "pad" or "stretch"',
        "crop_to_aspect_ratio pad_to_aspect_ratio keep_aspect_ratio preserve_aspect_ratio "
        "aspect_ratio letterbox crop",
    ),
    _Option(
        ("interpolation",),
        "",
        "resample resize_method resample_method antialias resize_mode",
    ),
    _Option(
        ("decode",),
        ", a function of a file's bytes; or override load_sample(path)",
        "loader reader_fn read_fn load_fn read_func loading_function decoder decode_fn parser "
        "image_loader open_fn",
    ),
    _Option(
        ("decode",),
        ", a function of a record; or override load_sample",
        "parse_fn parse_function parse_example parser_fn",
    ),
    _Option(
        ("on_error",),
        ': "raise", "skip" or "replace"',
        "errors ignore_errors skip_errors error_handling handler on_bad_sample skip_bad",
    ),
    _Option(
        ("cache",),
        ': "ram", or a folder',
        "cache_dir cache_path cache_file cache_in_memory in_memory cache_data keep_in_memory use_cache",
    ),
    _Option(("compression",), "", "compression_type"),
    _Option(("delimiter",), "", "sep field_delim delim"),
    _Option(
        ("missing",),
        ", the number to use for an empty field",
        "na_value fill_value default_values",
    ),
    _Option(
        ("clip",),
        ", the number of frames per sample",
        "num_frames n_frames frames clip_length sequence_length",
    ),
    _Option(("dtype",), "", "x_dtype data_type image_dtype output_dtype"),
)

_ELSEWHERE: tuple[_Advice, ...] = (
    _Advice(
        "split(loader, validation=0.2), from_directory(..., validation=0.2) and from_dataframe(..., "
        "validation=0.2) return a training loader and a validation loader",
        "validation_split test_size val_split valid_split val_size valid_size validation_size "
        "test_split train_size train_split subset validation_fraction",
    ),
    _Advice(
        "pass the other loader to fit(validation_data=...)",
        "validation_data val_data validation_steps",
    ),
    _Advice(
        'from_directory(folder, label_mode=...) takes "int", "categorical" (one-hot), "binary" or None; '
        "other loaders deliver labels as they are stored",
        "label_mode class_mode one_hot categorical sparse num_classes n_classes nb_classes",
    ),
    _Advice(
        "from_directory(folder, class_names=[...]) selects the folders that are classes, and numbers "
        "them in this order",
        "classes labels_map class_to_idx class_indices class_list categories",
    ),
    _Advice(
        "labels are the second argument of loaders of arrays and files; load_sample, records, packs "
        "and tables contain their own labels",
        "label labels target targets y_true ys",
    ),
    _Advice(
        "the data are the first argument",
        "data dataset inputs images image_paths file_paths filenames filepaths files path directory "
        "folder root data_dir source image_files x_set",
    ),
    _Advice(
        "from_dataframe(frame, path_column, label_column, weight_column=...) reads a table of file "
        "names, and CsvSequenceLoader(files, x=[...], y=[...]) reads numbers",
        "x_col y_col weight_col dataframe column_names select_columns label_name label_columns "
        "target_column column_defaults",
    ),
    _Advice(
        "TFRecordSequenceLoader(files, features={...}) selects the features, and finds their types in "
        "the files",
        "feature_description feature_spec feature_names",
    ),
    _Advice(
        "the number of samples per batch is batch_size=",
        "bs batchsize batch minibatch_size mini_batch_size per_device_batch_size",
    ),
    _Advice(
        "pass epochs to fit(epochs=...); repeat(loader, n) has every sample n times in an epoch",
        "epochs num_epochs n_epochs repeat",
    ),
    _Advice(
        "subset(loader, numbers) and take(loader, n) select samples",
        "take skip limit filter filter_fn max_samples num_samples n_samples is_valid_file samples "
        "indices sample_indices",
    ),
    _Advice(
        "leave it out: batches are NumPy arrays, and the backend moves them to its device",
        "pin_memory pin_memory_device device non_blocking",
    ),
    _Advice(
        "leave it out: threads and processes are kept between epochs",
        "persistent_workers",
    ),
    _Advice(
        'leave it out: loaders log to the logger "kloaders" of Python\'s logging',
        "verbose progress progress_bar log_level silent",
    ),
    _Advice(
        "leave it out: images are (height, width, channels)",
        "data_format channels_first channels_last dim_ordering",
    ),
    _Advice(
        "put augmentation into layers of the model, or into transform=; kloaders.migrate has Keras' "
        "ImageDataGenerator",
        "horizontal_flip vertical_flip rotation_range zoom_range shear_range width_shift_range "
        "height_shift_range brightness_range channel_shift_range fill_mode cval samplewise_center "
        "featurewise_center samplewise_std_normalization featurewise_std_normalization zca_whitening "
        "save_to_dir save_prefix save_format",
    ),
    _Advice(
        "to_tf_dataset(loader, output_signature=...) makes a tf.data.Dataset from a loader",
        "output_signature output_types output_shapes element_spec",
    ),
    _Advice(
        "a worker process that hangs is ended after the number of seconds in the environment "
        "variable KLOADERS_WORKER_TIMEOUT",
        "timeout",
    ),
)

_MEANT = {name: (ours, value) for ours, value, names in _OPTIONS for name in names.split()}
_SAID = {name: advice for advice, names in _ELSEWHERE for name in names.split()}


def meant_by(name: str, known: Collection[str]) -> str | None:
    """What to use instead of `name`, as a sentence; None if unknown.

    Args:
        name: an option that does not exist.
        known: the options that exist.

    >>> meant_by("image_size", ["seed", "size"])
    'that is size= here, as size=(height, width).'
    >>> meant_by("shufle", ["seed", "shuffle"])
    'did you mean shuffle=?'
    >>> meant_by("zzz", ["seed", "shuffle"])
    """
    close = difflib.get_close_matches(name, known, 1, _ALIKE)
    typo = f"did you mean {close[0]}=?" if close else None
    if name in _MEANT:
        ours, value = _MEANT[name]
        for option in ours:
            if option in known:
                return f"that is {option}= here{value}."
        return None
    if name in _SAID:
        return f"{_SAID[name]}."
    return typo
