"""Public names outside of the matrix of transforms, and why: nothing differentiates them.

A whole room or module may stand here, or one name of it. What is new in a module that does not
stand here as a whole has to be placed: here, or in the matrix.
"""

__all__ = ["PLACED"]

_ROOM = {
    "zeroproof.cli": "A command reads and writes files.",
    "zeroproof.data": "Tables are read and written; their numbers are NumPy's.",
    "zeroproof.defaults": "It holds numbers with their legal ranges.",
    "zeroproof.errors": "It holds types of errors.",
    "zeroproof.estimators": "An estimator fits and answers whole tables of NumPy numbers.",
    "zeroproof.export": "A run folder is written and read.",
    "zeroproof.metrics": "Metrics are counts and sums for reports; nothing learns from them.",
    "zeroproof.native": "Kernels in place, which losses and layers call.",
    "zeroproof.plots": "Pictures are drawn from plain numbers.",
    "zeroproof.solve": "The solver fits in closed form, without autograd.",
    "zeroproof.testing": "It asserts and generates, for tests.",
}
_MODULE = {
    "zeroproof.autodiff.compiled": "It shapes compiled graphs, and holds private names of torch.",
    "zeroproof.autodiff.policies": "It says which policy is in force.",
    "zeroproof.autodiff.rewind": "It restores what a forward moved.",
    "zeroproof.autodiff.sound": "It runs forward and backward itself, in eager mode.",
    "zeroproof.autodiff.trace": "It watches, and changes nothing.",
    "zeroproof.inference.calibrate": "It chooses thresholds on the host.",
    "zeroproof.inference.run": "A fitted network answers the rows of a table.",
    "zeroproof.integrations.lightning": "It joins the loop of Lightning.",
    "zeroproof.integrations.torchmetrics": "Metrics count; nothing learns from them.",
    "zeroproof.integrations.transformers": "It joins the loop of Transformers.",
    "zeroproof.layers.rational_formulas": "Formulas of one entry, which rational layers run.",
    "zeroproof.layers.rational_loops": "Kernels, which rational layers call.",
    "zeroproof.losses.formulas": "Formulas of one entry, which every loss is tried with.",
    "zeroproof.losses.gradients": "It chooses the machine for a loss.",
    "zeroproof.losses.loops": "Kernels, which losses call.",
    "zeroproof.projective.decoding": "It is what TorchScript runs, in eval mode alone.",
    "zeroproof.scm.division_loops": "Kernels, which divisions call.",
    "zeroproof.training.adaptive": "A schedule moves a weight between epochs.",
    "zeroproof.training.checkpoint": "Checkpoints are files.",
    "zeroproof.training.config": "It holds options and what the trainer calls between steps.",
    "zeroproof.training.loaders": "It reads batches.",
    "zeroproof.training.progress": "It counts steps and epochs.",
    "zeroproof.training.readout": "The closed-form readout runs between epochs, without autograd.",
    "zeroproof.training.report": "It holds what an epoch gave.",
    "zeroproof.training.sampler": "It chooses rows.",
    "zeroproof.training.step": "It calls model and loss for a loop, over batches and processes.",
    "zeroproof.training.success": "It measures a trained model, and optimises a copy itself.",
    "zeroproof.training.thresholds": "It draws numbers on the host.",
    "zeroproof.training.trainer": "It runs the loop itself.",
    "zeroproof.training.trunk": "It runs a whole fit.",
}
_PART = "It is called inside a backward, or decides whether there is one."
_NAME = {
    "zeroproof.projective.tuples.tangential": "Its own tests take every transform.",
    "zeroproof.inference.strict.InferenceConfig": "It holds thresholds.",
    "zeroproof.inference.status.Status": "It names causes.",
    "zeroproof.inference.status.columns_of": "It makes a table.",
    "zeroproof.inference.strict.checked_config": "It checks an option.",
    "zeroproof.layers.basis.checked_domain": "It checks an option.",
    "zeroproof.layers.basis.identity_coefficients": "It returns constants.",
    "zeroproof.layers.basis.in_basis": "It converts lists of Python numbers.",
    "zeroproof.layers.basis.span": "It bounds what may be evaluated, without a gradient.",
    "zeroproof.layers.basis.reach_bounds": "It bounds what may be evaluated, without a gradient.",
    "zeroproof.layers.features.Column": "It holds the scale of a column.",
    "zeroproof.layers.features.GradedFeatures": "It holds what feature_matrix evaluates.",
    "zeroproof.layers.features.ModuleFeatures": "It holds what feature_matrix evaluates.",
    "zeroproof.layers.features.RandomFeatures": "It holds what feature_matrix evaluates.",
    "zeroproof.layers.features.fit_column": "It measures a column on the host.",
    "zeroproof.layers.features.graded_features": "It builds a table of degrees.",
    "zeroproof.layers.features.random_features": "It draws constants.",
    "zeroproof.layers.features.width_of": "It counts features.",
    "zeroproof.losses.coverage.coverage": "It counts; soft_coverage has a gradient.",
    "zeroproof.projective.decoding.Thresholds": "It holds thresholds.",
    "zeroproof.projective.tuples.least_square": "It returns a Python number.",
    "zeroproof.projective.tuples.target_scale": "It returns a Python number.",
    "zeroproof.scm.operation.pull": _PART,
    "zeroproof.scm.division.divisible": "It tells where values may be looked at.",
    "zeroproof.scm.division.slopes": "The formula of each division's derivatives.",
    "zeroproof.scm.functions.coverage": "It counts; soft_coverage has a gradient.",
}
PLACED = {**_ROOM, **_MODULE, **_NAME}
