"""The plots of the demo stories, as data.

Each plot has a theme a reader can ask for, beats in order (a beat that starts with ``?`` may be left out) and
questions with answers that the story decides. Slots: see ``world.py``.
"""
# ruff: noqa: E501  a template is one line, so that it reads as the sentence it makes

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One story line. ``questions`` are pairs (question template, answer template)."""

    theme: str
    beats: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


PLOTS = (
    Plot(
        theme="a storm",
        beats=(
            "One [night|evening|afternoon], a great storm came[ over the hills| from the west|].",
            "?The wind [howled|blew and blew], and the rain [fell like stones|would not stop].",
            "{hero} was safe at home, but {he} [thought of|was worried about] {friend} the {fkind}, whose roof was [old|thin|full of holes].",
            "[So {he} took|{He} took] {his} [lantern|coat|longest rope] and [ran out|went out] into the [rain|storm].",
            '?"Who is there?" [called|cried] {friend}. "It is me, {hero}! Come [with me|to my house]!"',
            "Together they [ran|walked] back through the [mud|wind|dark], and {hero} made [a fire|hot soup|warm tea] for {friend}.",
            "In the morning the sky was [clear|blue], and a rainbow stood over the [trees|fields|hills].",
            "[They mended the roof together|{hero} helped {friend} to mend the roof], and {friend} never forgot [that night|how kind {hero} had been].",
        ),
        questions=(
            ("[What kind of weather came|What came in the story|What happened that night]?", "A great storm came."),
            ("Who did {hero} help?", "{hero} helped {friend} the {fkind}."),
        ),
    ),
    Plot(
        theme="getting lost",
        beats=(
            "One [day|morning|autumn day], {hero} [went for a long walk|followed a butterfly|went to pick berries] and lost {his} way.",
            "Every [tree|path|hill] looked the same, and [soon it was dark|the sun was going down].",
            '?"[Oh no|Oh dear]," said {hero}. "How will I [ever |]get home?"',
            "Then {he} heard a [small|soft|friendly] voice. It was a {fkind} named {friend}.",
            '"[Do not be afraid|Do not cry|Do not worry]," said {friend}. "[Follow the stars|Follow the river|Follow me], and you will [find your home|be home soon]."',
            "They walked [side by side|hand in hand|slowly] [through the night|for an hour|under the moon], and {friend} [sang songs|told jokes|told stories] all the way.",
            "At last {hero} saw [the light in {his} window|{his} own front door|{his} home].",
            "{He} [hugged|thanked] {friend} and gave {fhim} [a piece of cake|a basket of {food}|a {thing}].",
            "?From that day on, {hero} always [looked at the path|took a map|walked with a friend].",
        ),
        questions=(
            (
                "Who [helped {hero}|showed {hero} the way|helped {hero} to get home]?",
                "A {fkind} named {friend} helped {hero}.",
            ),
            ("[Why was {hero} afraid|What went wrong|What happened to {hero}]?", "{hero} lost {his} way."),
        ),
    ),
    Plot(
        theme="a lost thing",
        beats=(
            "One [day|morning|rainy day], {hero} found a {thing} [in the grass|on the road|under a bush|near the well].",
            '"[Whose|I wonder whose] {thing} is this?" [said {hero}|{he} thought].',
            "?{He} asked the [miller|postman|geese|neighbours], but [nobody knew|it was not theirs].",
            "[At last|Then|In the evening] {he} met a {fkind} named {friend}, who was [crying|very sad|looking everywhere].",
            '"I have lost my {thing}," said {friend}. "[My grandmother gave it to me|It was a gift from my mother|I love it more than anything]."',
            "{hero} [wanted to keep it|liked it very much], but {he} [gave it back at once|held it out and smiled].",
            "{friend} [jumped for joy|laughed with joy|was so happy] and [shared {fhis} {food} with {hero}|invited {hero} to dinner].",
            "[The {thing} was gone, but {hero} had found a friend|{hero} learned that a friend is worth more than a {thing}].",
        ),
        questions=(
            ("What did {hero} find?", "{hero} found a {thing}."),
            (
                "[Whose was it|Who had lost the {thing}|Who did the {thing} belong to]?",
                "The {thing} belonged to {friend} the {fkind}.",
            ),
        ),
    ),
    Plot(
        theme="being brave",
        beats=(
            "{hero} was afraid of {fear}. {He} [never told anyone|did not like to talk about it|was a little ashamed of it].",
            "[One day|One evening|One cold day] {his} friend {friend} the {fkind} [called for help|was in trouble]. {fHis} [foot was stuck|kite was stuck|little brother was missing].",
            "[To get there|To help], {hero} had to face {fear}.",
            "{His} [knees|legs|hands] shook, but {he} took a deep breath and [counted to ten|thought of {friend}|sang a little song].",
            '?"I can do this," {he} [said|whispered] to {himself}.',
            "Step by step {he} went on, [until {he} reached {friend}|and soon {he} was there].",
            '"You [came|saved me]!" [cried|said] {friend}. "[You are so brave|I knew you would come]."',
            "[Since then|After that], {hero} was [only a little|no longer] afraid of {fear}.",
        ),
        questions=(
            ("What was {hero} afraid of?", "{hero} was afraid of {fear}."),
            (
                "Who [was in trouble|called for help|did {hero} save]?",
                "{friend} the {fkind} [was in trouble|called for help].",
            ),
        ),
    ),
    Plot(
        theme="sharing",
        beats=(
            "One [winter|cold|grey] [day|morning], {hero} had only [one basket of|a small plate of|one bowl of] {food} left.",
            "[Then someone knocked|There was a knock] at the door. It was a [hungry|tired|cold] {fkind} named {friend}.",
            '"[Please|Excuse me], do you have [something to eat|a little food]?" asked {friend}.',
            "{hero} looked at the {food}. It was [not much|hardly enough for one].",
            '"[Come in|Sit down]," {he} said. "[We will share it|There is enough for two]."',
            "?They ate by the fire and [talked until midnight|laughed a lot|told each other stories].",
            "[In spring|Some weeks later|When summer came], {friend} came back with a [cart|basket|bag] full of {food2}.",
            '"You shared with me, and now I share with you," said {friend}[. {hero} was very happy|, and they had a feast].',
        ),
        questions=(
            ("What did {hero} share?", "{hero} shared {his} {food}."),
            ("What did {friend} bring [back|later]?", "{friend} brought {food2}."),
        ),
    ),
    Plot(
        theme="building something",
        beats=(
            "{hero} wanted to build a {project}. [It was {his} biggest dream|{He} thought about it day and night].",
            "{He} worked [all day|all week] [alone|with a hammer and some wood], but the {project} [broke|fell down|fell apart].",
            "?{He} tried again, and it [broke|fell down] again.",
            '"[This is too hard|I give up]," {he} [said|sighed].',
            'A {fkind} named {friend} [came by|heard {him}|was passing]. "[May I help|Shall we try together]?" {fhe} asked.',
            "{friend} [had strong rope|knew a clever trick|drew a good plan], and {hero} [had good wood|did not give up].",
            "[Three days later|By the end of the week|At sunset] the {project} was [finished|ready].",
            "It was {color} and [beautiful|strong], and [everyone came to see it|they were very proud].",
            '?"[Two heads are better than one|Together we can do anything]," said {hero}.',
        ),
        questions=(
            ("What did {hero} [build|want to build]?", "{hero} [built|wanted to build] a {project}."),
            ("What colour was the {project}?", "The {project} was {color}."),
            ("Who helped [to build it|{hero}]?", "A {fkind} named {friend} helped."),
        ),
    ),
    Plot(
        theme="a race",
        beats=(
            "Every [summer|year] there was a great race [around the lake|over the hills|through the woods].",
            "{hero} [wanted to win. So did|had practised every day. But so had] {friend} the {fkind}, who was very fast.",
            '["Ready, steady, go!" called the judge|The bell rang], and they [ran|were off].',
            "[Half way|Near the end], {friend} [fell|hurt {fhis} foot|slipped in the mud] and could not go on.",
            "{hero} could see the [finish|end of the road]. {He} could [win|be first]!",
            "But {he} [stopped|turned back] and helped {friend} [up|to stand].",
            "[Slowly they walked on together|Arm in arm they went on], and they [crossed the line|finished] at the same time.",
            "Everybody [cheered|clapped], and they both got [a {color} ribbon|a cup|a big cake].",
        ),
        questions=(
            ("Who won the race?", "{hero} and {friend} finished at the same time."),
            ("Why did {hero} stop?", "{hero} stopped to help {friend}."),
        ),
    ),
    Plot(
        theme="a birthday",
        beats=(
            "It was {hero}'s birthday, but [nobody said a word about it|everyone seemed to have forgotten].",
            "{He} went to see {friend} the {fkind}, but {friend} [was not at home|only said that {fhe} was busy].",
            '?"[Perhaps|Maybe] they do not like me," {hero} thought, and {he} [felt sad|walked home slowly].',
            "When {he} opened [the door|{his} door], it was [dark|very quiet].",
            'Then [all the lights went on|someone lit a candle]. "Surprise!" [shouted|called] {friend} and all {his} friends.',
            "There were [balloons|paper stars|flowers], {food}, and a [cake|big cake] with {color} [candles|icing].",
            '{friend} gave {him} a {thing}. "[I made it|I chose it] for you," {fhe} said.',
            "It was the [best|happiest] birthday that {hero} had ever had.",
        ),
        questions=(
            ("What [present |gift |]did {hero} get?", "{hero} got a {thing} from {friend}."),
            ("Why was {hero} sad[ at first|]?", "{hero} thought that everyone had forgotten {his} birthday."),
        ),
    ),
    Plot(
        theme="a fire",
        beats=(
            "One [windy|dry|hot] [night|evening|afternoon], {hero} [smelled|saw] smoke. The [barn|mill|house] of {friend} the {fkind} was on fire!",
            '"[Fire! Fire|Wake up! Fire|Help! Fire]!" [cried|called|shouted] {hero}, and [the whole village|everyone] came running.',
            "?One bucket was [not enough|too small]. [The well was far away|The flames grew higher].",
            '"[Make|Let us make] a line!" [said|called] {hero}. [So they stood in a line|They all stood side by side] from the [well|river|pond] to the fire.',
            "[From hand to hand|One after the other|Quickly and quietly], they passed the buckets [along|down the line], [and not a drop was lost|full ones up and empty ones back].",
            "[Soon|After an hour|Before midnight] the fire was out.",
            "?Everyone was [black with smoke|tired and wet], but nobody was hurt.",
            '"[You saved my home|Thank you all]," said {friend}[, and {fhe} gave {food} to everyone|. {fHe} hugged {hero}].',
            "[Alone, nobody could have done it|Many hands had done what one could not].",
        ),
        questions=(
            (
                "[What was on fire|Whose home was on fire|Where was the fire]?",
                "The fire was at the home of {friend} the {fkind}.",
            ),
            (
                "[How did they put out the fire|What did they do]?",
                "They made a line and passed buckets from hand to hand.",
            ),
        ),
    ),
    Plot(
        theme="a star",
        beats=(
            "One [clear|warm|cold] night, a [little|tiny] star fell [from the sky|into the garden] and landed [in the grass|in a tree|on the roof].",
            '"[Please help me|I want to go home]," said the star. "[I miss the moon|My sisters are waiting]."',
            "{hero} did not know [how to reach|the way to] the sky, so {he} [asked|woke] {his} friend {friend} the {fkind}.",
            "[They tried a ladder, but it was too short|They tried to throw it, but it fell back]. [They tried a kite, but there was no wind|They tried a tall tree, but it was not tall enough].",
            '?"[Do not give up|Think again]," said {friend}.',
            "Then {hero} had an idea. {He} [tied the star to a {color} balloon|put the star in a {color} balloon], and [up it went|it rose and rose].",
            "The star [shone|waved|smiled] [from above|in the sky], [next to the moon|brighter than before].",
            "[Every night|Since then], it [winks|twinkles] [at {hero} and {friend}|over the house of {hero}].",
        ),
        questions=(
            ("What fell [from the sky|down]?", "A star fell from the sky."),
            ("How did the star get home?", "{hero} sent it up with a {color} balloon."),
            ("Who helped {hero}?", "{friend} the {fkind} helped {hero}."),
        ),
    ),
    Plot(
        theme="a garden",
        beats=(
            'In spring, {hero} planted a [tiny|small|brown] seed. "[This will be|It will become] a {plant}," {he} said.',
            "[Each|Every] [day|morning] {he} gave it water and [sang to it|waited].",
            '[Nothing happened|The ground stayed bare] for [a week|two weeks|a long time], and {friend} the {fkind} laughed. "[It is only a stone|Nothing will grow here]!"',
            "But {hero} [was patient|did not give up|kept on].",
            "?It rained, and the sun [shone|came out].",
            "[Then one day|At last] a green leaf [came up|looked out of the earth]. It grew and grew.",
            "By [autumn|the end of summer] there was the [biggest|finest] {plant} [in the land|that anyone had seen].",
            '"[I am sorry that I laughed|I was wrong]," said {friend}. "[Will you teach me|May I plant one too]?" And {hero} gave {fhim} [a seed|three seeds].',
        ),
        questions=(
            ("What did {hero} [plant|grow]?", "{hero} [planted|grew] a {plant}."),
            ("Who laughed[ at {hero}|]?", "{friend} the {fkind} laughed."),
        ),
    ),
    Plot(
        theme="music",
        beats=(
            "{hero} [dreamed of playing|wanted to play] the {instrument}, but [the first notes|all the notes] sounded [like a door|like an angry goose|terrible].",
            "[The neighbours|The others] [closed their windows|covered their ears].",
            'Only {friend} the {fkind} [stayed to listen|did not laugh]. "[Play it slowly|Try once more]," {fhe} said.',
            "So {hero} practised [every evening|in the woods|in the cellar] [for a month|all winter|until the moon was high].",
            "?{friend} [sat beside {him}|listened each time|kept the beat].",
            "At the [summer|spring|harvest] feast, the [band|singer] did not come, and [there was no music|everyone was sad].",
            "[Quietly|With shaking hands], {hero} took {his} {instrument} and [began|started] to play.",
            "It was [beautiful|so lovely that the birds fell silent]. Everyone [danced|clapped and danced] [until morning|all night].",
        ),
        questions=(
            ("What did {hero} play?", "{hero} played the {instrument}."),
            ("Who listened to {hero}?", "{friend} the {fkind} listened."),
        ),
    ),
    Plot(
        theme="a new neighbour",
        beats=(
            "One [day|morning], a {fkind} named {friend} moved in [next door|across the road].",
            "[Nobody|No one] spoke to {friend}, because {fhe} [was different|came from far away|never said a word].",
            "{hero} made {food} and [knocked|rang the bell]. [There was no answer|Nobody opened], so {he} left the food at the door.",
            "The next day [the plate was|the dish was] empty, and [on it|beside it] lay a {thing}.",
            '?{hero} [smiled|laughed]. "[What a nice gift|How kind]," {he} said.',
            'So it went on [for a week|day after day], until the door opened. "I am {friend}," said the {fkind}. "I am [only shy|not used to friends]."',
            '"[That is all right|I am shy too]," said {hero}. [They had tea together|They sat in the sun and talked].',
            "[Soon|Before long] {friend} [knew everyone|was everybody's friend|had many friends].",
        ),
        questions=(
            ("What did {hero} [make|give to {friend}]?", "{hero} made {food} for {friend}."),
            ("What [did {friend} give back|lay beside the plate]?", "{friend} gave {hero} a {thing}."),
            ("Who moved in?", "A {fkind} named {friend} moved in."),
        ),
    ),
    Plot(
        theme="snow",
        beats=(
            "[One winter morning|When {hero} woke up], [the whole world|everything] was white. It was the first snow of the year.",
            '{hero} [ran outside|put on {his} boots] and called {friend} the {fkind}. "[Come and see|Come out and play]!"',
            "They [made a snow house|slid down the hill|built a snow castle] and [threw snowballs|laughed until noon].",
            "[But then|Suddenly] {friend} [stopped|looked sad]. {fHe} had lost {fhis} {thing} in the snow.",
            "They [looked everywhere|dug and dug], but [the snow was deep|it was nowhere to be seen].",
            '?"[It is gone|We will never find it]," [sighed|said] {friend}.',
            '"[We will find it|Wait]," said {hero}. {He} [went back step by step|followed their tracks], and there, [under a branch|by the gate|next to the sledge], it was.',
            "[Happy and cold|With red noses], they went in and had [hot soup|cocoa|{food}] by the fire.",
        ),
        questions=(
            ("What did {friend} lose?", "{friend} lost {fhis} {thing}."),
            ("Who found it?", "{hero} found it."),
        ),
    ),
    Plot(
        theme="a map",
        beats=(
            "[In an old chest|Behind a picture|Inside a book], {hero} found a map with a {color} cross.",
            '"[A treasure|This shows a treasure]!" {he} [said|cried], and {he} ran to {friend} the {fkind}. "Come with me!"',
            "They [crossed the river|walked through the woods] and [climbed over the rocks|went past three hills], [just as the map said|looking at the map all the time].",
            "?[At noon they rested|It grew hot], and they shared {food}.",
            "Under [a big stone|the roots of a tree], [they dug|they looked], and there was [a chest|a box]!",
            "There was no gold in it. There was {treasure}.",
            '{friend} [laughed|smiled]. "[This is better than gold|I like it more than gold]," {fhe} said.',
            "[They took it home|They carried it home together], and {hero} [kept it all {his} life|put it beside {his} bed].",
        ),
        questions=(
            ("What was [the treasure|in the chest|in the box]?", "It was {treasure}."),
            ("What did {hero} find first?", "{hero} found a map."),
            ("Who went with {hero}?", "{friend} the {fkind} went with {hero}."),
        ),
    ),
    Plot(
        theme="telling the truth",
        beats=(
            "{friend} the {fkind} had a {thing} that {fhe} loved[ very much|].",
            "One day {hero} [played with it|picked it up], and it [fell and broke|slipped and broke].",
            '[Nobody had seen it|{hero} was alone]. "[I could hide it|I could say that the wind did it]," {he} thought.',
            "But {his} [heart was heavy|stomach hurt], and {he} could not [eat|sleep].",
            '[In the morning|At last] {he} went to {friend}. "I broke your {thing}," {he} said. "I am [so |very |]sorry."',
            "?{friend} was [silent|quiet] for a while.",
            '"[It takes courage to say that|Thank you for telling me the truth]," said {friend}. "[Let us mend it together|We can mend it]."',
            "[With glue and patience|Piece by piece], they mended it. [It was not perfect, but they liked it more than before|{hero} felt as light as a feather].",
        ),
        questions=(
            ("What did {hero} break?", "{hero} broke the {thing} of {friend}."),
            ("[Whose {thing} was it|Who owned the {thing}]?", "It was the {thing} of {friend} the {fkind}."),
        ),
    ),
    Plot(
        theme="a monster",
        beats=(
            "[Everyone|The whole village] [talked about|was afraid of] a monster in the [old cave|dark woods|deep well]. [At night|Each night] it [howled|moaned|roared].",
            '"[I will go and see|Someone must look]," said {hero}, and {he} took [a lantern|a torch] and some {food}.',
            "?[The way was dark|The path was steep], and {his} heart [beat fast|was loud].",
            '[Inside|There], {he} saw [two eyes|a big shadow]. "[Who is there?|Do not come closer!]" said a [thin|trembling|small] voice.',
            "It was [no monster at all|not a monster]. It was a {fkind} named {friend}, who [had a thorn in {fhis} foot|could not find the way out|was all alone].",
            "{hero} [helped {fhim}|sat down beside {fhim}] and gave {fhim} {food}.",
            '"[I thought nobody would come|Everyone always ran away]," said {friend}.',
            "[Together they went to the village|{hero} took {fhim} home], and [from then on the nights were quiet|nobody was afraid any more].",
        ),
        questions=(
            ("[Who|What] was the monster?", "The monster was only a {fkind} named {friend}."),
            ("What did {hero} give to {friend}?", "{hero} gave {food} to {friend}."),
        ),
    ),
)
