"""What can go wrong between the gateway and the AI Service. Its own words are never passed on."""

from core.problems import Invalid, NotFound, Problem, Unavailable


class AiTimeout(Problem):
    status, slug, title = 504, "ai-timeout", "The AI Service took too long"


class AiUnreachable(Problem):
    status, slug, title = 502, "ai-unreachable", "The AI Service did not answer"


class AiAnswerInvalid(Problem):
    """It answered something that the contract does not allow."""

    status, slug, title = 502, "ai-answer-invalid", "The AI Service gave no usable answer"


class AiUnavailable(Unavailable):
    """Its breaker is open, or no AI Service is configured."""

    slug, title = "ai-unavailable", "The AI Service is away"


class AiBusy(Unavailable):
    """The tenant has as many calls under way as it may."""

    slug, title = "ai-busy", "Too many AI calls at once"


class AiModelMissing(Unavailable):
    """It does not have the model version that the tenant is pinned to, or that the question names."""

    slug, title = "ai-model-missing", "The AI Service does not have this model version"


class AiModelPinned(Invalid):
    """The question names another version. Extra member: `model_version`, the pinned one."""

    slug, title = "ai-model-pinned", "Your organisation is pinned to another model version"


class AiInputRejected(Invalid):
    slug, title = "ai-input-rejected", "The AI Service cannot work with this input"


class AiResultNotFound(NotFound):
    slug, title = "ai-result-not-found", "The case has no such answer of the AI Service"


class AiItemUnknown(Invalid):
    """Extra member: `items`, what the answer consists of."""

    slug, title = "ai-item-unknown", "The AI Service's answer has no such item"
