import importlib,inspect,os,sys,traceback
from types import ModuleType
from functools import partial
def stand_ins():
    import torch
    from megatron.core.ssm import mamba_mixer
    from megatron.core.transformer import multi_latent_attention
    from megatron.core import tensor_parallel
    import megatron.core.extensions.transformer_engine as ext
    mamba_mixer.HAVE_MAMBA_SSM=True
    class Norm(torch.nn.Module):
        def __init__(self, size, **_):
            super().__init__(); self.weight=torch.nn.Parameter(torch.empty(size))
    mamba_mixer.ExtendedRMSNorm=Norm
    class Nothing:
        def __init__(self,*a,**k): pass
    multi_latent_attention.RotaryEmbedding=multi_latent_attention.YarnRotaryEmbedding=Nothing
    from contextlib import nullcontext
    from types import SimpleNamespace
    from packaging.version import Version
    from megatron.core import utils
    utils._te_version=Version("2.9")
    from nemo.collections.llm.gpt.model.megatron.hyena import hyena_mixer, hyena_utils
    from megatron.core.ssm import mamba_block
    for m in (mamba_mixer,mamba_block,hyena_mixer,hyena_utils):
        m.get_cuda_rng_tracker=lambda: SimpleNamespace(fork=lambda *a: nullcontext())
    sys.modules["transformer_engine"]=ModuleType("transformer_engine")
    from megatron.core.models.T5 import t5_spec
    from megatron.core.models.bert import bert_layer_specs
    from nemo.collections.llm.bert.model import base
    from nemo.collections.llm.t5.model import t5
    from nemo.collections.llm.gpt.model.megatron.hyena import hyena_layer_specs as h, hyena_mixer
    for m in (t5_spec,bert_layer_specs,base): importlib.reload(m)
    t5.HAVE_TE=True
    for n in ("TENorm","TELayerNormColumnParallelLinear","TERowParallelLinear","TEDotProductAttention"):
        setattr(h,n,getattr(ext,n))
    h.TELayerNormColumnParallelLinearFp8=ext.TELayerNormColumnParallelLinear
class Tok:
    vocab_size=1000; eos_id=0
def one(recipe, changes={}):
    import fiddle
    from torch._subclasses.fake_tensor import FakeTensorMode
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    for v in [k for k in os.environ if k.startswith("NVTE_")]: del os.environ[v]
    module=importlib.import_module(f"nemo.collections.llm.recipes.{recipe}")
    config=module.pretrain_recipe(dir="runs",name=recipe).model.config
    config.use_cpu_initialization=True; config.perform_initialization=False; config.gradient_accumulation_fusion=False
    if hasattr(config,"use_transformer_engine_full_layer_spec"): config.use_transformer_engine_full_layer_spec=False
    built=fiddle.build(config)
    if getattr(built,"multi_latent_attention",False): built.transformer_layer_spec=partial(get_gpt_decoder_block_spec,use_transformer_engine=True)
    ends={k:True for k in ("pre_process","post_process") if k in inspect.signature(built.configure_model).parameters}
    from contextlib import nullcontext
    with nullcontext() if recipe.startswith("bert") else FakeTensorMode(allow_non_fake_inputs=True):
        return built.configure_model(Tok(),**ends)
def go(names):
    import torch
    from megatron.core import parallel_state
    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel()
    stand_ins()
    out={}
    for recipe in names:
        try: out[recipe]=sum(p.numel() for p in one(recipe).parameters())
        except Exception as e: out[recipe]=traceback.format_exc()[-900:]
    return out
