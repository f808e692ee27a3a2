"""Problems to try methods on; `"zoo.problems:rosenbrock"` and the like can be given as objectives."""

from zoo.problems.synthetic import ackley as ackley
from zoo.problems.synthetic import calm_canyon as calm_canyon
from zoo.problems.synthetic import canyon as canyon
from zoo.problems.synthetic import cigar as cigar
from zoo.problems.synthetic import different_powers as different_powers
from zoo.problems.synthetic import discus as discus
from zoo.problems.synthetic import ellipsoid as ellipsoid
from zoo.problems.synthetic import griewank as griewank
from zoo.problems.synthetic import levy as levy
from zoo.problems.synthetic import rastrigin as rastrigin
from zoo.problems.synthetic import rosenbrock as rosenbrock
from zoo.problems.synthetic import schwefel as schwefel
from zoo.problems.synthetic import sphere as sphere
