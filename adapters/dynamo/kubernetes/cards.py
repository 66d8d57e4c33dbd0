"""Cards for a load, by what `dualgrain cost --json` says of one: cards.py COST.json --rate REQUESTS_PER_SECOND

A card that keeps so many requests at once, a new one for each that ends, gives a round's answers in a round's time: the time that
`cost` says for their prompts and their tokens one after the other. Little's law says the rest. Only the standard library is needed.
"""
import argparse
import json
import math


def row(batch, prompt, generate, options):
    """Answers a second of a card, seconds of an answer, cards (foretold, and by the slow end of the interval), joules of an answer."""
    total = {bound: batch["total_time_s"][bound] / options.served for bound in ("value", "high")}
    cards = {bound: math.ceil(options.rate / options.busy * seconds / batch["batch"]) for bound, seconds in total.items()}
    joules = prompt * batch["prompt_joules_per_token"]["value"] + generate * batch["joules_per_token"]["value"]
    return batch["batch"] / total["value"], total["value"], cards["value"], cards["high"], joules


def above_0(text):
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cost", help="what `dualgrain cost --json` printed")
    parser.add_argument("--rate", type=above_0, required=True, help="requests a second of the whole fleet")
    parser.add_argument("--served", type=above_0, default=0.9, help="what a server reaches of what `cost` says")
    parser.add_argument("--busy", type=above_0, default=0.8, help="how much of what a card can do is planned for")
    options = parser.parse_args()
    try:
        with open(options.cost) as file:
            cost = json.load(file)
    except (OSError, ValueError) as error:
        parser.error(f"{options.cost}: {error}")
    if not isinstance(cost, dict) or not {"model", "machine", "prompt_tokens", "generate_tokens", "batches"} <= cost.keys():
        parser.error(f"{options.cost}: expected what `dualgrain cost DIR --device h200 --json` prints")
    generate = cost["generate_tokens"]
    print(f"{cost['model']} on {cost['machine']}: {options.rate:g} requests a second of {cost['prompt_tokens']} tokens in, {generate} out")
    print("at once  answers/s a card  s an answer  ms a token     cards  kW of the fleet  J an answer  GB a card")
    for batch in cost["batches"]:
        answers, seconds, cards, most, joules = row(batch, cost["prompt_tokens"], generate, options)
        memory = batch["memory"]
        print(
            f"{batch['batch']:7} {answers:17.1f} {seconds:12.2f} {1e3 * seconds / generate:11.1f} {f'{cards}..{most}':>9}"
            f" {joules * options.rate / 1e3:16.2f} {joules:12.1f} {memory['total_bytes'] / 1e9:10.1f}{'' if memory['fits'] else ' too much'}"
        )


if __name__ == "__main__":
    main()
