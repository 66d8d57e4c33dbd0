#!/usr/bin/env python3
"""Small evaluation files of every task form, and the log-likelihoods transformers computes for their options.

    python make_task_fixtures.py OUT MODEL [--shared EVAL_DIR] [--perplexity TEXT JSON]

Writes OUT/{choices,contexts,letters,lambada}.jsonl (items written for this project) and OUT/expected.json.
With --shared also OUT/shared_expected.json for the first lines of EVAL_DIR/*.jsonl, by file name and line index only.
With --perplexity also JSON: the model's perplexity on the first windows of TEXT.

Convention, as in lm-evaluation-harness, all in fp32:

- An option is a pair (context, continuation), the continuation without the joining space. Whitespace at the end of the
  context moves to the front of the continuation: context = c.rstrip(), tail = its trailing whitespace + " " + continuation.
- whole = tokenizer(context + tail), with special tokens; context_len = len(tokenizer(context)), also with them.
- loglikelihood = sum over whole[context_len:] of log p(token | all tokens before it); tokens = how many those are;
  greedy = each of them is the argmax; bytes = UTF-8 length of the continuation without any joining whitespace.
- best = index of the largest loglikelihood, best_per_byte = of loglikelihood / bytes; the first one wins a tie.
- Options by form: choices: query + each choice; contexts: each context option + the continuation; letters: input + each
  of A, B, C, D, gold = the place of `output`; lambada: one option, no gold.
- Perplexity: the whole text encoded once with special tokens, windows of 1,024 tokens that do not overlap, the rest
  dropped; exp of the mean negative log-likelihood over the 1,023 predictions in each window, all windows pooled.
"""

import argparse
import glob
import json
import math
import os

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

LETTERS = "ABCD"
SHARED_LINES = 3
WINDOW, WINDOWS = 1024, 8

# Own items. Some carry traps: a context that ends in blanks or a newline, letters outside ASCII, a choice that is
# the beginning of another, choices of very different length.
CHOICES = [
    {
        "query": "Question: Nadia wants her wet boots to be dry by the morning. What should she do?\nAnswer:",
        "choices": [
            "Stand them near the warm stove overnight.",
            "Fill them with snow.",
            "Put them back into the rain barrel.",
        ],
        "gold": 0,
    },
    {
        "query": "Question: Which of these is needed for a candle to keep burning?\nAnswer: ",
        "choices": ["air", "air without oxygen", "salt", "moonlight"],
        "gold": 0,
    },
    {
        "query": "To carry soup from the kitchen to the table without spilling,",
        "choices": ["walk slowly and keep the bowl level.", "run with the bowl held upside down."],
        "gold": 0,
    },
    {
        "query": "Passage: The ferry leaves the island at noon and at four. In winter only the boat at noon runs.\n"
        "Question: does the ferry leave at four in winter?\nAnswer:\n",
        "choices": ["no", "yes"],
        "gold": 0,
    },
    {
        "query": "The old café in Zürich served a soup called “crème d’orge”, which is made from",
        "choices": ["barley", "gravel", "blotting paper", "naïve questions — and answers"],
        "gold": 0,
    },
]
CONTEXTS = [
    {
        "context_options": [
            "The ladder would not fit in the shed because the ladder",
            "The ladder would not fit in the shed because the shed",
        ],
        "continuation": "was too long.",
        "gold": 0,
    },
    {
        "context_options": [
            "Oskar lent Ravi his umbrella, since Oskar",
            "Oskar lent Ravi his umbrella, since Ravi",
        ],
        "continuation": "had come without one and it was pouring.",
        "gold": 1,
    },
    {
        "context_options": [
            "The mule was loaded with sacks while the pony carried nothing, so by evening the mule ",
            "The mule was loaded with sacks while the pony carried nothing, so by evening the pony ",
        ],
        "continuation": "was the more tired of the two.",
        "gold": 0,
    },
    {
        "context_options": [
            "Marta read the letter to Irene, for without her spectacles Marta",
            "Marta read the letter to Irene, for without her spectacles Irene",
        ],
        "continuation": "could not make out a word.",
        "gold": 1,
    },
    {
        "context_options": [
            "We moved the piano before the sofa, as the piano",
            "We moved the piano before the sofa, as the sofa",
        ],
        "continuation": "was harder to lift.",
        "gold": 0,
    },
]
LETTER_ITEMS = [
    {
        "subject": "household_physics",
        "input": "What happens to a sealed, half-full glass bottle of water left in a freezer?\n"
        "A. The water shrinks and the bottle stays whole\nB. The water expands as it turns to ice\n"
        "C. The water boils\nD. Nothing changes\nAnswer:",
        "output": "B",
    },
    {
        "subject": "plain_arithmetic",
        "input": "A gardener plants 7 rows of 6 beans and loses 4 plants. How many are left?\n"
        "A. 42\nB. 46\nC. 38\nD. 34\nAnswer:",
        "output": "C",
    },
    {
        "subject": "map_reading",
        "input": "You walk with the rising sun straight ahead of you. Which way are you going?\n"
        "A. North\nB. South\nC. West\nD. East\nAnswer:",
        "output": "D",
    },
    {
        "subject": "word_sense",
        "input": "In which sentence does “bank” mean the side of a river?\n"
        "A. We moored the boat at the bank.\nB. The bank closes at five.\n"
        "C. She put her wages in the bank.\nD. He robbed a bank.\nAnswer:",
        "output": "A",
    },
    {
        "subject": "natural_history",
        "input": "Which animal sleeps through the cold season in a burrow?\n"
        "A. the swift\nB. the marmot\nC. the herring\nD. the reindeer\nAnswer:",
        "output": "B",
    },
]
LAMBADA = [
    {
        "context": "The miller had one daughter and one mule, and he trusted only one of them with the flour. When the "
        "sacks came back short he did not blame the girl; he went out and scolded the",
        "continuation": "mule",
    },
    {
        "context": "All night the captain watched for the lighthouse. Toward dawn the mate called down that he could "
        "see it, and the captain, climbing the stairs, asked how far off he judged the",
        "continuation": "lighthouse",
    },
    {
        "context": "“You forgot the salt again,” said his sister, tasting the soup. He looked at the shelf, at the "
        "table, at the floor; nowhere could he find the ",
        "continuation": "salt",
    },
    {
        "context": "Professor Łukasiewicz kept his notes in a blue tin. Students joked that if the college burned he "
        "would save nothing but the",
        "continuation": "tin",
    },
    {
        "context": "They had agreed to meet under the clock. She came at seven, and at eight, when the snow had covered "
        "her hat and there was still no sign of him, she looked up once more at the",
        "continuation": "clock",
    },
]
FILES = {"choices": CHOICES, "contexts": CONTEXTS, "letters": LETTER_ITEMS, "lambada": LAMBADA}


def options_of(item):
    """The (context, continuation) pairs of an item of any form, and the index of the right one or None."""
    if "choices" in item:
        return [(item["query"], choice) for choice in item["choices"]], item["gold"]
    if "context_options" in item:
        return [(context, item["continuation"]) for context in item["context_options"]], item["gold"]
    if "output" in item:
        return [(item["input"], letter) for letter in LETTERS], LETTERS.index(item["output"])
    return [(item["context"], item["continuation"])], None


class Scorer:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model = model.eval()
        self.closest = math.inf  # smallest lead of a greedy decision, to know that rounding cannot flip a flag

    def log_probabilities(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)

    def option(self, context, continuation):
        kept = context.rstrip()
        tail = context[len(kept) :] + " " + continuation
        whole = self.tokenizer(kept + tail)["input_ids"]
        start = len(self.tokenizer(kept)["input_ids"])
        assert start < len(whole) <= self.model.config.max_position_embeddings
        rows = self.log_probabilities(whole)[start - 1 : -1]
        targets = torch.tensor(whole[start:])
        of_target = rows.gather(1, targets[:, None])[:, 0]
        others = rows.scatter(1, targets[:, None], -math.inf).max(-1).values
        self.closest = min(self.closest, (of_target - others).min().abs().item())
        return {
            "loglikelihood": of_target.double().sum().item(),
            "tokens": len(targets),
            "greedy": bool((of_target > others).all()),
            "bytes": len(continuation.encode()),
        }

    def item(self, item):
        pairs, gold = options_of(item)
        options = [self.option(context, continuation) for context, continuation in pairs]
        sums = [option["loglikelihood"] for option in options]
        per_byte = [option["loglikelihood"] / option["bytes"] for option in options]
        result = {"options": options}
        if gold is not None:
            result.update(gold=gold, best=sums.index(max(sums)), best_per_byte=per_byte.index(max(per_byte)))
        return result

    def perplexity(self, text):
        ids = self.tokenizer(text)["input_ids"]
        windows = [ids[at : at + WINDOW] for at in range(0, len(ids) - WINDOW + 1, WINDOW)][:WINDOWS]
        losses = []
        for window in windows:
            rows = self.log_probabilities(window)[:-1]
            losses.append(-rows.gather(1, torch.tensor(window[1:])[:, None]).double().mean().item())
        mean = sum(losses) / len(losses)
        return {
            "tokens_in_text": len(ids),
            "first_ids": ids[:8],
            "window": WINDOW,
            "windows": len(windows),
            "mean_negative_loglikelihood": losses,
            "perplexity": math.exp(mean),
        }


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("model")
    parser.add_argument("--shared")
    parser.add_argument("--perplexity", nargs=2, metavar=("TEXT", "JSON"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    scorer = Scorer(args.model)
    about = {"made_with": versions(), "model": os.path.basename(os.path.normpath(args.model))}

    files = {}
    for name, items in FILES.items():
        with open(os.path.join(args.out, f"{name}.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        files[f"{name}.jsonl"] = [scorer.item(item) for item in items]
    write_json(os.path.join(args.out, "expected.json"), {**about, "files": files})

    if args.shared:
        shared = {}
        for path in sorted(glob.glob(os.path.join(args.shared, "*.jsonl"))):
            with open(path, encoding="utf-8") as file:
                lines = [json.loads(next(file)) for _ in range(SHARED_LINES)]
            scores = [{"line": i, **scorer.item(item)} for i, item in enumerate(lines)]
            for score in scores:
                score.pop("gold", None)  # others' data; the Rust side has it in the file itself
            shared[os.path.basename(path)] = scores
        write_json(os.path.join(args.out, "shared_expected.json"), {**about, "files": shared})
    print(f"closest greedy decision: {scorer.closest:.3g}")

    if args.perplexity:
        text_path, json_path = args.perplexity
        with open(text_path, encoding="utf-8", newline="") as file:
            result = scorer.perplexity(file.read())
        write_json(json_path, {**about, "text": os.path.basename(text_path), **result})
        print(f"perplexity {result['perplexity']:.6f} over {result['windows']} windows")


if __name__ == "__main__":
    main()
