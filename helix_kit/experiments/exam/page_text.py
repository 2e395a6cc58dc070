"""The text of ``docs/engine-fidelity.md`` around its tables. Names in braces are filled in by `page`."""

HEAD = """# How close predictions of an engine come

`helix-kit exam` predicts real runs of vLLM 0.15.1 from their workloads and settings alone: {train} runs on H100, on
which the constants of `data/engines/{engine}.yaml` were fitted, and {eval} further runs on H100, A100 and L40S, which
were not seen. The measurements are not part of this repository; this page has the errors over groups of runs, and our
predictions for the {eval}. The constants are global or per kind of GPU, never per model or per run. `helix-kit exam
--fit --store` makes the fit, the record and this page anew; all of them follow from the training runs and a seed.

## Errors on the runs of the fit

Median of the absolute error in %, whole runs.

"""
ITL = """
A measured ITL divides by the length of the answer as the client counts it after reading the text again. For one model
of the fit it is a fifth shorter than what was generated, and its ITL is missed by as much: errors of ITL compare the
measured ITL with our TPOT, which divides by the tokens generated. The workloads tell the client's count, but in the
training runs that count was itself computed from the measured ITL, so that an ITL by it would have the error of TPOT.

## Errors on models that the fit has not seen

The constants are fitted again without the runs of one model, which are then predicted: the median of the absolute
error over the model's runs in %. Without any model with 8-bit experts, only the priors are left for their constants.
Without Llama-2, the only model whose query heads all have keys and values of their own, little but the prior tells how
fast attention reads the cache. The form of the step model and of the fit was chosen by these errors, so that other
models may be missed by somewhat more.

"""
NOISE = """
Other arrivals at the same rates change a run's mean E2E by {e2e_mean} %, its mean TTFT by {ttft_mean} %, its TPOT by
{tpot_server_mean} %, and the 99th percentile of its TTFT by {ttft_p99} % (one standard deviation, median over the
runs). No simulator that is not told when requests arrived can be better than that.
"""
FOLDS = """
What is left is what the other models cannot tell. The fits without a model agree on most constants; they differ by
more than half on these:

"""
CONSTANTS = """
## Constants

The fit minimises the errors of each stage of the training runs, together with the distance of each constant from its
prior: what is expected of it before any run. The prior is a value and a spread, as a factor: x 1.5 says that a value
half as large again or two thirds is one standard deviation away. The last columns say what the medians of the errors
in % become (E2E / TTFT / ITL) with a fifth less and a fifth more of a constant; as fitted they are {now}.

"""
RULES = """
## Rules

Rules are settings, not constants: the records of `data/engines` have the engine's defaults, and a run of the exam has
those that it was started with. `helix` is the runtime of this package; its times come from profiles, so that its record
has no constants.

"""
GPUS = """
What the values for A100 and L40S do: the change of the predictions for the runs on these GPUs, in % (E2E / TTFT), when
the value is a tenth smaller and a tenth larger.

"""
PREDICTIONS = """
## Predictions for runs that were not seen

Means in ms; hits: share of the prompt tokens found in the prefix cache. ITL divides by the client's count of tokens,
which the workloads tell, TPOT by the tokens generated. Where requests wait for one of the
`max_num_seqs` places, small errors of a step become large ones of the TTFT. `helix-kit exam -o DIR` writes each stage
and the percentiles.

"""
LIMITS = """
## What is not modelled

- A100 and L40S: no run of the fit used them. Their shares of the datasheet and their sampling times come from
  published measurements of other programs, launches and bookkeeping are taken to last as long as on H100.
- Experts in 16 bits: no run of the fit has them. The costs of their small kernels are counted, not measured; how
  evenly tokens choose them is taken from the literature.
- The KV cache of models with parts that are not layers, such as the vision tower of Llama-4: they have up to a third
  fewer blocks than the rule says. The runs of the exam tell how many they had. For dense models and Mixtral the rule
  is within 1.2 %.
- Logit processors, structured output, speculative decoding, LoRA, multimodal inputs.
- Offloading of KV blocks to the host's memory: blocks that leave the GPU are computed again.
- Sliding windows and chunked local attention: all layers attend to the whole context.
- Which experts tokens choose depends on the text. The model with 8-bit experts takes longer for answers of 1,448
  tokens than predicted, and less long for answers of 250: the first are missed by twice as much as the others.
- Load of the host: tokeniser and HTTP take a constant time, however many requests there are. The time to the first
  token of one model varies more than this explains.
- Data and expert parallelism within a replica. A node that is part of two pipelines, and faults: `simulate` refuses
  these with an engine of replicas.
"""
