"""Environments by name: what users may say, what is built from it, and what is said where it is wrong."""

import sys

import gymnasium
import numpy as np
import pytest

from evolution.behaviour import Episode
from evolution.environments.cart_pole import CartPole
from evolution.environments.gymnasium import GymnasiumEnvironment
from evolution.environments.lookup import EnvironmentSpec, as_environment, near_names
from evolution.environments.maze import HardMaze
from evolution.environments.spaces import Continuous, Discrete, Image, Spaces, Vector
from tests.evolution import environments_of_users as users
from zoo.core.errors import ZooWarning
from zoo.execution.packing import decode, encode_whole

USERS = "tests.evolution.environments_of_users"


def travelled(spec):
    """Return what a worker has of it."""
    return decode(encode_whole(spec))


def returns(environment):
    """Return the rewards of an episode without a push."""
    environment.begin([3])
    still = np.zeros(1, np.int64) if isinstance(environment.spaces.actions, Discrete) else np.zeros((1, 1))
    total = []
    while True:
        done = environment.step(still.astype(np.float32) if still.ndim == 2 else still)
        total.append(done.rewards[0])
        if done.ended[0]:
            return total


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CartPole-v1", GymnasiumEnvironment),
        ("gymnasium:CartPole-v1", GymnasiumEnvironment),
        ("cart-pole", CartPole),
        ("maze", HardMaze),
        (f"{USERS}:limited", GymnasiumEnvironment),
        (f"{USERS}:Own", users.Own),
        (f"{USERS}:own", users.Own),
        (users.limited, GymnasiumEnvironment),
        (users.Own, users.Own),
        (users.own, users.Own),
        (CartPole, CartPole),
    ],
)
def test_an_environment_is_whatever_users_have(said, kind):
    spec = as_environment(said)
    assert isinstance(spec, EnvironmentSpec)
    built = travelled(spec).build()
    assert type(built) is kind
    assert (built.spaces, built.max_steps, built.frames_per_step) == (
        spec.spaces,
        spec.max_steps,
        spec.frames_per_step,
    )
    assert spec.behaviours == built.behaviours
    assert spec.behaviour == next(iter(built.behaviours))
    assert as_environment(spec) is spec
    assert not hasattr(spec, "begin")


def test_options_and_limits_are_handed_on():
    walk = as_environment(users.Walk, options={"limit": 4, "start": 0.5}, max_steps=9, frames_per_step=5)
    assert (walk.max_steps, walk.frames_per_step) == (9, 5)
    assert len(returns(travelled(walk).build())) == 4
    assert len(returns(as_environment(users.Walk, options={"limit": 40}, max_steps=9).build())) == 9
    assert returns(as_environment(f"{USERS}:Own", options={"start": 2.0}).build()) == [-5.0] * 5
    assert as_environment(users.Own, max_steps=2).max_steps == 2
    assert as_environment("maze", max_steps=20).max_steps == 20
    assert as_environment("CartPole-v1", options={"sutton_barto_reward": True}, max_steps=9).max_steps == 9


def test_what_is_registered_in_one_process_only_travels(monkeypatch):
    gymnasium.register("Walk-v3", lambda limit=2: users.Walk(limit=limit), max_episode_steps=30)
    try:
        packed = encode_whole(as_environment("Walk-v3", options={"limit": 3}))
    finally:
        del gymnasium.registry["Walk-v3"]
    spec = decode(packed)
    assert spec.identity().keys() == {"name", "max_steps", "options", "code", "arguments"}
    assert (spec.name, spec.max_steps) == ("Walk-v3", 30)
    assert len(returns(spec.build())) == 3


def test_functions_defined_anywhere_travel():
    limit = 4
    spec = as_environment(lambda: gymnasium.wrappers.TimeLimit(users.Walk(), limit))
    assert len(returns(travelled(spec).build())) == 4
    assert spec.name.endswith("<lambda>")


def test_it_is_small():
    sizes = [len(encode_whole(as_environment(said))) for said in ("CartPole-v1", "maze", users.limited)]
    assert max(sizes) < 3000


def test_equal_ones_build_the_same():
    def walk(limit):
        return as_environment(users.Walk, options={"limit": limit}, max_steps=9)

    assert walk(3) == walk(3)
    assert hash(walk(3)) == hash(travelled(walk(3)))
    assert walk(3) != walk(4)
    assert walk(3) != as_environment(users.Walk, options={"limit": 3}, max_steps=8)
    assert as_environment("CartPole-v1") != as_environment("cart-pole")
    assert as_environment("maze") != "maze"


def test_the_identity_tells_options_code_and_behaviours():
    told = as_environment("CartPole-v1", max_steps=7).identity()
    assert told == {"name": "CartPole-v1", "max_steps": 7}
    walk = as_environment(
        f"{USERS}:Walk", options={"limit": 3, "start": 0.5}, max_steps=9, behaviour=f"{USERS}:last_two"
    ).identity()
    assert walk["name"] == f"{USERS}:Walk"
    assert walk["options"] == {"limit": 3, "start": 0.5}
    assert walk["behaviour"]["name"] == f"{USERS}:last_two"

    def one(limit):
        class Mine(users.Walk):
            def step(self, action):
                return super().step(limit)

        return Mine

    def another():
        class Mine(users.Walk):
            def step(self, action):
                return super().step([0.5])

        return Mine

    assert one([0.0]).__qualname__ != another().__qualname__
    codes = {as_environment(mine, max_steps=9).identity()["code"] for mine in (one([0.0]), another())}
    assert len(codes) == 2
    assert as_environment(one([0.0]), max_steps=9) == as_environment(one([0.0]), max_steps=9)


def test_what_a_class_inherits_from_the_users_own_belongs_to_its_code(monkeypatch):
    before = as_environment(users.Noted, max_steps=3).identity()["code"]
    monkeypatch.setattr(users.Walk, "reset", lambda self, seed=None, options=None: (np.zeros(2), {}))
    monkeypatch.setattr(users.Walk, "state", 0.0, raising=False)
    monkeypatch.setattr(users.Walk, "steps", 0, raising=False)
    assert as_environment(users.Noted, max_steps=3).identity()["code"] != before


def test_behaviours_are_chosen_by_name_or_given():
    assert as_environment("HalfCheetah-v5").behaviour == "position"
    assert as_environment("HalfCheetah-v5", behaviour="observation").behaviour == "observation"
    assert as_environment("maze").behaviour == "position"
    assert as_environment(users.Own, behaviour="steps").behaviour == "steps"
    for given in (users.last_two, f"{USERS}:last_two"):
        spec = as_environment(users.limited, behaviour=given)
        assert spec.behaviour == "custom"
        assert spec.behaviours == {"custom": 2, "observation": 2}
        environment = travelled(spec).build()
        returns(environment)
        state = float(np.float32(environment._seats[0].inner.state))
        assert environment.behaviour("custom").tolist() == [[state, state]]
    with pytest.raises(
        ValueError, match=r"`behaviour` must be one of 'position', 'observation', got 'positon'.*"
    ):
        as_environment("HalfCheetah-v5", behaviour="positon")
    with pytest.raises(ValueError, match=r"`behaviour` is .*has no 'last_to'.*Did you mean 'last_two'"):
        as_environment(users.limited, behaviour=f"{USERS}:last_to")
    with pytest.raises(TypeError, match=r"`behaviour` must be a name or a function of an episode, got 3"):
        as_environment(users.limited, behaviour=3)
    with pytest.raises(TypeError, match=r"`behaviour` must be a function of an episode, got 3"):
        as_environment(users.limited, behaviour=f"{USERS}:NOT_CALLABLE")
    with pytest.raises(ValueError, match=r"`behaviour` must be one of its own by name for maze"):
        as_environment("maze", behaviour=users.last_two)


def test_the_size_of_a_behaviour_is_found_out_once():
    calls = []

    def last(episode: Episode):
        calls.append(episode)
        return [len(calls)]

    spec = as_environment(users.limited, behaviour=last)
    calls.clear()
    spec.build()
    assert calls == []


@pytest.mark.parametrize(
    ("said", "near"),
    [
        ("CartPole", "'CartPole-v1'"),
        ("cartpole-v1", "'CartPole-v1'"),
        ("CartPole-v7", "'CartPole-v1'"),
        ("cartpole", "'cart-pole'"),
        ("LunarLander-v2", "'LunarLander-v3'"),
        ("HalfCheeta-v5", "'HalfCheetah-v5'"),
        ("mase", "'maze'"),
        ("Frostbit-v5", "'ALE/Frostbite-v5'"),
    ],
)
def test_an_unknown_name_lists_near_ones_and_what_to_install(said, near):
    with pytest.raises(ValueError, match=r"must be one that is known, got") as caught:
        as_environment(said)
    assert near in str(caught.value)
    assert str(caught.value).count(" or ") <= 2
    assert 'pip install "gradfree[rl]"' in str(caught.value)
    assert 'pip install "gradfree[atari]"' in str(caught.value)


def test_a_name_that_is_like_no_other_lists_none():
    with pytest.raises(ValueError, match=r"got 'qqqqqqqq'\. Environments of Gymnasium come with"):
        as_environment("qqqqqqqq")


def test_near_names_are_the_last_versions():
    names = ["Hopper-v2", "Hopper-v5", "Hopper-v4", "phys2d/Hopper-v9", "Walker2d-v5", "ALE/Hop-v5"]
    assert near_names("hoper-v3", names) == ["Hopper-v5", "ALE/Hop-v5"]
    assert near_names("Zaxxon", names) == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("tests.evolution.no_such:Walk", r"there is no module 'tests.evolution.no_such'"),
        (f"{USERS}:Wolk", r"has no 'Wolk'\. Did you mean 'Walk'\?"),
        (f"{USERS}:", r'must have the form "module:name"'),
        ("examples/walks.py:Walk", r"must name a module, not a file, .*: write 'examples\.walks:Walk'\."),
        ("a b:c", r'must have the form "module:name"'),
        ("no_such_module:Walk-v0", r"there is no module 'no_such_module'"),
        (f"{USERS}:Walk-v0", r"must be one that is known"),
    ],
)
def test_names_of_modules_are_checked(said, told):
    with pytest.raises(ValueError, match=told):
        as_environment(said)


def test_without_gymnasium_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: `pip install \"gradfree\[rl\]\"`.*'maze'"):
        as_environment("CartPole-v1")
    assert as_environment("maze").build().max_steps == 400
    assert as_environment(users.Own).max_steps == 5


def test_without_what_an_environment_needs_it_is_said_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ModuleNotFoundError, match=r"HalfCheetah-v5 needs a package.*gradfree\[rl\]"):
        as_environment("HalfCheetah-v5")


def test_an_import_that_a_module_of_the_user_fails_at_is_theirs(tmp_path, monkeypatch):
    (tmp_path / "broken_walk.py").write_text("import no_such_package_of_theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_of_theirs"):
        as_environment("broken_walk:Walk")


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match=r"unknown option of .*Walk 'limits'\. Did you mean 'limit'\?"):
        as_environment(f"{USERS}:Walk", options={"limits": 3}, max_steps=9)
    with pytest.raises(TypeError, match=r"unknown option of maze 'step'"):
        as_environment("maze", options={"step": 3})
    with pytest.raises(TypeError, match=r"`options` must be what CartPole-v1 takes: .*'gravity'"):
        as_environment("CartPole-v1", options={"gravity": 3})
    with pytest.raises(TypeError, match=r"`options` must be a dictionary, got \[3\]"):
        as_environment("CartPole-v1", options=[3])


def test_what_cannot_be_said_is_refused():
    with pytest.raises(TypeError, match=r"must be a name, or a class or function .* got 3\.$"):
        as_environment(3)
    with pytest.raises(TypeError, match=r"Several are needed.*: give a function .* lambda: Walk\(\)\.$"):
        as_environment(users.Walk())
    made = gymnasium.make("CartPole-v1")
    with pytest.raises(TypeError, match=r": give its id, 'CartPole-v1', or .*\.make\('CartPole-v1'\)\.$"):
        as_environment(made)
    with pytest.raises(TypeError, match=r" Give its id, 'CartPole-v1'\.$"):
        as_environment(gymnasium.spec("CartPole-v1"))
    with pytest.raises(ValueError, match=r"`max_steps` must be at least 1, got 0"):
        as_environment("CartPole-v1", max_steps=0)
    with pytest.raises(ValueError, match=r"`frames_per_step` must be at least 1"):
        as_environment("CartPole-v1", frames_per_step=0)
    with pytest.raises(TypeError, match=r"`fresh` must be True or False, got 1"):
        as_environment("CartPole-v1", fresh=1)
    with pytest.raises(TypeError, match=r"`max_steps` must be said where the environment is, got 3"):
        as_environment(as_environment("maze"), max_steps=3)
    with pytest.raises(ValueError, match=r"`max_steps` must be left out for .*own"):
        as_environment(users.own, max_steps=3)
    with pytest.raises(ValueError, match=r"`frames_per_step` must be left out for maze"):
        as_environment("maze", frames_per_step=3)
    with pytest.raises(ValueError, match=r"`fresh` must be left out for maze"):
        as_environment("maze", fresh=True)
    with pytest.raises(
        ValueError, match=r"`max_steps` must be None for cart-pole, whose CartPole takes none"
    ):
        as_environment("cart-pole", max_steps=3)


def test_spaces_that_no_policy_serves_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"observations of Blackjack-v1 .*got Tuple.*FlattenObservation"):
        as_environment("Blackjack-v1", max_steps=9)
    with pytest.raises(ValueError, match=r"given, such as 1000: CliffWalking-v1 has no time limit"):
        as_environment("CliffWalking-v1")
    space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})
    with pytest.raises(ValueError, match=r"got Dict: .*FlattenObservation"):
        as_environment(users.with_spaces, options={"observations": space}, max_steps=9)


def test_pictures_are_served():
    space = gymnasium.spaces.Box(0, 255, (4, 6, 3), np.uint8)
    options = {"observations": space, "seen": np.zeros((4, 6, 3), np.uint8)}
    spec = as_environment(users.with_spaces, options=options, max_steps=9)
    assert spec.spaces == Spaces(Image(3, 4, 6), Continuous((-1.0,), (1.0,)))
    assert spec.behaviour is None
    with pytest.raises(ValueError, match=r"`behaviour` must be one of none, got 'position'"):
        as_environment(users.with_spaces, options=options, max_steps=9, behaviour="position")


@pytest.mark.parametrize(
    ("said", "options", "told"),
    [
        (users.Raising, {"at": 1, "what": ValueError}, None),
        (users.Old, {}, r"no episode gets further than its first step: .*`reset` must return"),
        (users.Old, {"reset": False}, r"no episode gets further than its first step: .*`step` must return"),
        (users.Giving, {"at": 1, "every": True, "reward": np.nan}, r"first step: .*reward of step 1 is nan"),
        (users.Giving, {"at": 2, "every": True, "reward": np.nan}, None),
        (
            users.Giving,
            {"at": 1, "every": True, "observation": np.zeros(3)},
            r"first step: .*step 1 has shape \(3,\), and the space says \(2,\)",
        ),
    ],
)
def test_an_environment_that_never_works_is_refused_and_one_that_sometimes_does_is_not(said, options, told):
    if told is None:
        assert as_environment(said, options=options, max_steps=9).max_steps == 9
        return
    with pytest.raises(ValueError, match=told):
        as_environment(said, options=options, max_steps=9)


def test_an_environment_that_raises_where_it_is_built_says_so_at_once():
    def broken():
        raise RuntimeError("no robot")

    with pytest.raises(RuntimeError, match="no robot"):
        as_environment(broken)


def test_what_reset_does_not_take_back_is_built_for_every_episode():
    spec = as_environment(users.Remembering, max_steps=5)
    used = travelled(spec).build()
    alone = returns(spec.build())
    for _ in range(3):
        assert returns(used) == alone
    kept = as_environment(users.Remembering, max_steps=5, fresh=False).build()
    assert [returns(kept) == alone for _ in range(2)] == [True, False]


def test_randomness_that_is_not_seeded_is_warned_of():
    with pytest.warns(ZooWarning, match=r"Unseeded: an episode is another one although its seed"):
        as_environment(users.Unseeded, max_steps=5)


def test_spaces_that_differ_between_processes_are_refused():
    spec = as_environment(users.Walk, max_steps=5)
    there = travelled(spec)
    there._options = {}
    there._source = users.Plain
    with pytest.raises(
        ValueError, match=r"changed its spaces: they were .*Vector\(size=2\).* in this process"
    ):
        there.build()


@pytest.mark.parametrize(
    ("attributes", "error", "told"),
    [
        (
            {"spaces": None},
            TypeError,
            r"must say its `spaces` as .*Spaces\(observations, actions\), got None",
        ),
        ({"max_steps": 0}, ValueError, r"`max_steps` of .* must be an integer of at least 1, got 0"),
        ({"max_steps": None}, ValueError, r"`max_steps` of .* got None"),
        ({"slots": 1.5}, ValueError, r"`slots` of .* got 1\.5"),
        (
            {"spaces": Spaces(Vector(2), Continuous((-1.0,), (1.0,)))},
            ValueError,
            r"must be an array of float32 of shape \(2, 1\) by its `spaces`, got float32 of shape \(1, 1\)",
        ),
        (
            {"spaces": Spaces(Image(1, 2, 2), Continuous((-1.0,), (1.0,)))},
            ValueError,
            r"must be an array of uint8 of shape \(1, 1, 2, 2\) by its `spaces`",
        ),
    ],
)
def test_environments_that_are_not_what_they_say_are_refused(attributes, error, told):
    with pytest.raises(error, match=told):
        as_environment(users.Unfinished, options=attributes)


def test_pictures_are_of_an_environment_that_was_told_to_make_them():
    shown = as_environment("CartPole-v1").build(pictures=True)
    shown.begin([0])
    assert shown.render().shape[2] == 3
    silent = as_environment("CartPole-v1").build()
    silent.begin([0])
    assert silent.render() is None
    drawn = as_environment(users.Drawn, max_steps=20).build(pictures=True)
    drawn.begin([0])
    for _ in range(3):
        drawn.step(np.zeros((1, 1), np.float32))
    assert drawn.render()[0, :, 0].tolist() == [255] * 3 + [0] * 17
    walk = as_environment(users.limited).build(pictures=True)
    walk.begin([0])
    assert walk.render() is None
