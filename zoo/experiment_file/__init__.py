"""Experiments as files: TOML tables that become the arguments of `zoo.minimize`."""

from zoo.experiment_file.experiment import ExperimentFile as ExperimentFile
from zoo.experiment_file.experiment import read_experiment as read_experiment
from zoo.experiment_file.problems import ExperimentFileError as ExperimentFileError
from zoo.experiment_file.problems import Problem as Problem
