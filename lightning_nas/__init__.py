"""Neural architecture search as PyTorch Lightning modules.

All public names are here, ``from lightning_nas import DARTS, DARTSCell, Digits``, each imported when it is asked for.
"""

from lightning_nas.lazy import lazy_names

__version__ = "0.1.0"

PUBLIC = {
    "AgingEvolution": "strategies.aging_evolution",
    "Adam": "training.optimizers",
    "AdamW": "training.optimizers",
    "Architecture": "spaces.base",
    "ArchitectureLogger": "callbacks.architecture_logger",
    "ArchitectureRecord": "spaces.architecture_file",
    "CIFAR10": "data.cifar10",
    "Choice": "spaces.base",
    "ClutteredDigits": "data.cluttered_digits",
    "Controller": "controllers.base",
    "Cosine": "training.lr_schedules",
    "CosineRestarts": "training.lr_schedules",
    "DARTS": "methods.darts",
    "DARTSCell": "spaces.image_cells.darts",
    "DARTSRecurrentCell": "spaces.recurrent.darts",
    "DataModule": "data.base",
    "Digits": "data.digits",
    "ENAS": "methods.enas",
    "ENASMacro": "spaces.image_layers.enas_macro",
    "ENASMicro": "spaces.image_cells.enas_micro",
    "ENASRecurrentCell": "spaces.recurrent.enas",
    "Evaluation": "evaluators.base",
    "Evaluator": "evaluators.base",
    "Executor": "executors.base",
    "Exponential": "training.lr_schedules",
    "FactorizedController": "controllers.factorized",
    "FromScratch": "evaluators.from_scratch",
    "Graph": "spaces.graphs",
    "ImageClassification": "tasks.image_classification",
    "ImageData": "data.images",
    "ImageFolder": "data.image_folder",
    "Interruption": "callbacks.interruption",
    "LRSchedule": "training.lr_schedules",
    "LSTMController": "controllers.lstm",
    "LanguageModeling": "tasks.language_modeling",
    "Measure": "measures.base",
    "Method": "methods.base",
    "NASBench201": "spaces.image_cells.nas_bench_201",
    "NASWOT": "measures.naswot",
    "NASNetCell": "spaces.image_cells.nasnet",
    "Network": "spaces.base",
    "NoData": "data.no_data",
    "NonMonotoneAveraging": "callbacks.averaging",
    "Objective": "objectives",
    "OneShotMethod": "methods.base",
    "Optimizer": "training.optimizers",
    "PennTreebank": "data.penn_treebank",
    "PolicyGradient": "strategies.policy_gradient",
    "Processes": "executors.processes",
    "Proposal": "strategies.base",
    "PyDocs": "data.py_docs",
    "RMSprop": "training.optimizers",
    "RandomSearch": "strategies.random_search",
    "RandomSearchWS": "methods.random_search_ws",
    "Ray": "executors.ray",
    "Retrain": "training.retrain",
    "SGD": "training.optimizers",
    "SamplingMethod": "methods.base",
    "Scorer": "supernets.scoring",
    "Serial": "executors.serial",
    "SettingError": "errors",
    "SharedWeights": "evaluators.shared_weights",
    "Space": "spaces.base",
    "SynFlow": "measures.synflow",
    "Strategy": "strategies.base",
    "TabularBenchmark": "evaluators.tabular_benchmark",
    "Task": "tasks.base",
    "TextData": "data.text",
    "TextFiles": "data.text_files",
    "TransformerController": "controllers.transformer",
    "Trial": "strategies.base",
    "TrialLoop": "trials.loop",
    "TrialSearch": "trials.method",
    "ZeroCost": "evaluators.zero_cost",
    "draw_architecture": "pictures.draw",
    "load_architecture": "spaces.architecture_file",
    "load_search": "methods.loading",
    "read_trials": "trials.log",
}
"""Where each public name is defined."""

__all__ = [*PUBLIC, "PUBLIC"]
__getattr__ = lazy_names(__name__, PUBLIC)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
